"""A tokenizer learnt from texts, for networks that begin from nothing: words, and Chinese characters one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from archsmith.errors import BadInput

PAD, UNKNOWN = "[PAD]", "[UNK]"
WORDS, LEAST, LONGEST = 20_000, 2, 512  # words at most, times that one must occur, tokens of a text


def kept_words(tokenizer: Any, counts: np.ndarray, least: int = LEAST) -> Any:
    """The same tokenizer with those words alone that occur so often; counts (words,), padding and the unknown stay."""
    from tokenizers import Tokenizer

    told = json.loads(tokenizer.backend_tokenizer.to_str())
    words = sorted(told["model"]["vocab"], key=told["model"]["vocab"].__getitem__)
    kept = [word for number, word in enumerate(words) if number < 2 or counts[number] >= least]
    told["model"]["vocab"] = {word: number for number, word in enumerate(kept)}
    inner = Tokenizer.from_str(json.dumps(told))
    return _wrapped(inner, int(tokenizer.model_max_length))


def _wrapped(inner: Any, longest: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, unk_token=UNKNOWN, model_max_length=longest, padding_side="right"
    )


def learnt_tokenizer(texts: Iterable[str], words: int = WORDS, least: int = LEAST, longest: int = LONGEST) -> Any:
    """A transformers tokenizer of the commonest words of these texts; 0 is padding, 1 whatever is rarer.

    Words are lower case, parted at spaces and punctuation; every Chinese character is a word.
    """
    try:
        import transformers  # noqa: F401
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    except ImportError as error:
        raise BadInput("texts need the package transformers", "none", "", "pip install 'archsmith[hf]'") from error
    inner = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    inner.normalizer = normalizers.BertNormalizer(handle_chinese_chars=True, lowercase=True, strip_accents=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=words, min_frequency=least, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return _wrapped(inner, longest)
