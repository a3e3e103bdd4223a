"""A tokenizer learnt from texts, for networks that begin from nothing: words, and Chinese characters one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from archsmith.errors import BadInput

PAD, UNKNOWN = "[PAD]", "[UNK]"
WORDS, LEAST, LONGEST = 20_000, 2, 512  # words at most, times that one must occur, tokens of a text


def learnt_tokenizer(texts: Iterable[str], words: int = WORDS, least: int = LEAST, longest: int = LONGEST) -> Any:
    """A transformers tokenizer of the commonest words of these texts; 0 is padding, 1 whatever is rarer.

    Words are lower case, parted at spaces and punctuation; every Chinese character is a word.
    """
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise BadInput("texts need the package transformers", "none", "", "pip install 'archsmith[hf]'") from error
    inner = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    inner.normalizer = normalizers.BertNormalizer(handle_chinese_chars=True, lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=words, min_frequency=least, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=PAD, unk_token=UNKNOWN, model_max_length=longest, padding_side="right"
    )
