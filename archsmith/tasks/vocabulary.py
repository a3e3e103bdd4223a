"""Tokenizers learnt from texts, for networks that begin from nothing: words, and Chinese characters one by one; and
for texts that are to be gone on with characters, or pieces of words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.errors import BadInput
from archsmith.tasks.columns import find_label, find_texts
from archsmith.tasks.read import read

WHOLE = 10**9  # tokens of a text that is cut into windows later
PAD, UNKNOWN = "[PAD]", "[UNK]"
MUCH, PIECES, ALPHABET = 5_000_000, 4096, 4096  # characters of a text in pieces, such pieces, characters at most
WORDS, LEAST, LONGEST = 20_000, 2, 512  # words at most, times that one must occur, tokens of a text


def in_words(
    source: str,
    file: Path,
    cut: Callable[[str], Iterable[str]],
    label: str | None = None,
    text: str | Sequence[str] | None = None,
) -> Path:
    """Write a table (.tsv) of the labels and texts of another, with spaces between the words that a segmenter finds:
    any that takes a text and gives its words, such as `jieba.cut`. `label`, `text`: columns of unusual names.

    Raises `BadInput` for a text in which it finds none.
    """
    table = read(source)
    named = find_label(table, label)
    names = find_texts(table, text, named)
    texts = [[" ".join(" ".join(cut(each)).split()) for each in table.strings(name)] for name in names]
    for column in texts:
        if "" in column:
            place = table.place(column.index(""))
            raise BadInput("a text has words that the segmenter finds", "none", place, "take the row out")
    labels = [" ".join(each.split()) for each in table.strings(named)]
    rows = [("label", *names), *zip(labels, *texts, strict=True)]
    file.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return file


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


def learnt_tokenizer(
    texts: Iterable[str],
    words: int = WORDS,
    least: int = LEAST,
    longest: int = LONGEST,
    *,
    characters: bool = True,
) -> Any:
    """A transformers tokenizer of the commonest words of these texts; 0 is padding, 1 whatever is rarer.

    Words are lower case, parted at spaces and punctuation; every Chinese character is a word, or without `characters`
    what lies between two spaces, as a segmenter has put them.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    inner = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    inner.normalizer = normalizers.BertNormalizer(handle_chinese_chars=characters, lowercase=True, strip_accents=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=words, min_frequency=least, special_tokens=[PAD, UNKNOWN], show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return _wrapped(inner, longest)


def learnt_alphabet(texts: Sequence[str], much: int = MUCH) -> Any:
    """A transformers tokenizer that loses nothing of these texts; 0 is padding, 1 a character that is not in them.

    Each character is a token (Karpathy 2015), also spaces and ends of lines; of `much` text and more, pieces of words
    in bytes (BPE, Radford et al. 2019), for which nothing is unknown.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    special = [PAD, UNKNOWN]
    trainer: Any
    if sum(map(len, texts)) < much:
        inner = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        inner.decoder = decoders.Fuse()
        trainer = trainers.WordLevelTrainer(vocab_size=ALPHABET, special_tokens=special, show_progress=False)
    else:
        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=PIECES, special_tokens=special, show_progress=False, initial_alphabet=letters
        )
    inner.train_from_iterator(texts, trainer)
    return _wrapped(inner, WHOLE)
