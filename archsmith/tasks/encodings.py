"""Many tokenised texts in two flat arrays, and what a tokenizer puts around a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

CHUNK = 4096  # texts a call of the tokenizer: bounds the memory of its Python lists


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    pad_token_id: int | None
    eos_token_id: int | None
    mask_token_id: int | None
    padding_side: str

    def __call__(self, *texts: Any, **options: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class Encodings:
    """Ragged token ids: text i is `ids[offsets[i]:offsets[i + 1]]`.

    `ids` (tokens,) int32; `offsets` (texts + 1,) int64; `types` (tokens,) int8, the segment of each token of a pair.

    >>> Encodings.of([[5, 6], [7]]).lengths.tolist()
    [2, 1]
    """

    ids: np.ndarray
    offsets: np.ndarray
    types: np.ndarray | None = None

    @staticmethod
    def of(rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> Encodings:
        """From lists of token ids."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        total = int(lengths.sum())
        ids = np.fromiter((token for row in rows for token in row), np.int32, total)
        kinds = None if types is None else np.fromiter((kind for row in types for kind in row), np.int8, total)
        return Encodings(ids, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), kinds)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(texts,) int64: tokens of each text."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """(length,) int32: the token ids of one text."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def take(self, rows: np.ndarray) -> Encodings:
        """The texts `rows` (n,), in that order."""
        rows = np.asarray(rows, dtype=np.int64)
        return self.spans(self.offsets[rows], self.offsets[rows + 1])

    def spans(self, starts: np.ndarray, ends: np.ndarray) -> Encodings:
        """Pieces `ids[starts[i]:ends[i]]` as texts of their own; starts and ends (n,) int64."""
        lengths = np.maximum(ends - starts, 0)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Encodings(self.ids[where], offsets, None if self.types is None else self.types[where])

    def followed_by(self, other: Encodings) -> Encodings:
        """These texts, then the other's."""
        types = None if self.types is None or other.types is None else np.concatenate([self.types, other.types])
        offsets = np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]])
        return Encodings(np.concatenate([self.ids, other.ids]), offsets, types)


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around texts: `prefix` A `suffix`, or `prefix` A `middle` B `suffix`; and how it pads.

    `special` holds the ids that stand for no text; `mask` is None where the tokenizer has no such token.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    pad: int
    pad_left: bool
    mask: int | None
    pair: bool = False


def encode(tokenizer: Tokenizer, texts: Sequence[Sequence[str]], max_length: int) -> Encodings:
    """Tokenise one or two columns of texts, each (n,), with special tokens, cut to `max_length` tokens.

    Segment types are kept for pairs where the tokenizer knows them.
    """
    ids: list[list[int]] = []
    types: list[list[int]] = []
    for begin in range(0, len(texts[0]), CHUNK):
        columns = [list(column[begin : begin + CHUNK]) for column in texts]
        encoded = tokenizer(*columns, truncation=True, max_length=max_length, padding=False)
        ids += encoded["input_ids"]
        if len(texts) == 2 and "token_type_ids" in encoded:
            types += encoded["token_type_ids"]
    return Encodings.of(ids, types or None)


def find_frame(tokenizer: Tokenizer, sample: Sequence[str]) -> Frame:
    """Learn the frame from one text (or one pair): what the tokenizer adds before, between and after its tokens."""

    def plain(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    full = list(tokenizer(*sample)["input_ids"])
    first = plain(sample[0])
    begin = _position(full, first, 0)
    end = begin + len(first)
    middle: tuple[int, ...] = ()
    if len(sample) == 2:
        second = plain(sample[1])
        after = _position(full, second, end)
        middle, end = tuple(full[end:after]), after + len(second)
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else 0
    pad_left = tokenizer.padding_side == "left"
    return Frame(
        tuple(full[:begin]), middle, tuple(full[end:]), pad, pad_left, tokenizer.mask_token_id, len(sample) == 2
    )


def _position(full: Sequence[int], part: Sequence[int], begin: int) -> int:
    """Where `part` begins in `full` at or after `begin`; `begin` itself where it is not found."""
    for at in range(begin, len(full) - len(part) + 1):
        if list(full[at : at + len(part)]) == list(part):
            return at
    return begin


def pad(encodings: Encodings, rows: Sequence[int], frame: Frame) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` (and `token_type_ids` where there are types), each (rows, longest) int64."""
    chosen = encodings.take(np.asarray(rows, dtype=np.int64))
    lengths = chosen.lengths
    width = int(lengths.max(initial=0))
    column = np.arange(width)
    mask = column >= (width - lengths)[:, None] if frame.pad_left else column < lengths[:, None]
    ids = np.full(mask.shape, frame.pad, dtype=np.int64)
    ids[mask] = chosen.ids
    padded = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    if chosen.types is not None:
        types = np.zeros(mask.shape, dtype=np.int64)
        types[mask] = chosen.types
        padded["token_type_ids"] = torch.from_numpy(types)
    return padded


def batches(lengths: np.ndarray, size: int, rng: np.random.Generator | None) -> Iterator[list[int]]:
    """Rows (of `lengths` (rows,)) in batches of like length: in order of length, or shuffled when `rng` is given.

    Shuffled: the rows are drawn in random order, sorted by length within pools of 64 batches, and the batches of all
    pools come in random order; so little is spent on padding and no two passes are alike.
    """
    rows = len(lengths)
    if rng is None:
        order = np.argsort(lengths, kind="stable")
    else:
        pool = 64 * size
        drawn = rng.permutation(rows)
        pools = [drawn[begin : begin + pool] for begin in range(0, rows, pool)]
        order = np.concatenate([p[np.argsort(lengths[p], kind="stable")] for p in pools] or [drawn])
    starts = np.arange(0, rows, size)
    for start in starts if rng is None else rng.permutation(starts):
        yield order[start : start + size].tolist()
