"""Which texts are contiguous spans of which others: rolling hashes over words, all texts at once.

A text is compared by its words: Unicode-normalised, case-folded, punctuation left out, and each Chinese, Japanese or
Korean character a word of its own. Words are 64-bit hashes; a span's hash is the polynomial of its words modulo 2^64
(Karp & Rabin 1987), so equal hashes are taken for equal texts (odds of an error near 1e-7 for a million texts).
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
# Vowel signs and accents of their own, which are no letters to `re`: without them Hindi words would lose their vowels.
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e\u102b-\u103e"
WORD = re.compile(f"[{CJK}]|(?:[^\\W{CJK}]|[{MARKS}])+")
IS_CHARACTER = re.compile(f"[{CJK}]")
CHARACTER = 0.5  # of a word: what one Chinese, Japanese or Korean character says
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2^64
BASE_INVERSE = np.uint64(pow(int(BASE), -1, 2**64))
BLOCK = 1 << 20  # words looked at in one go
ANCHOR = 64  # longer texts are found by their first 64 words, then compared whole
SIEVE_BITS = 22


def words(text: str) -> list[str]:
    """The words that a text is compared by; its characters where it has no word.

    >>> words("Straße, so  GOOD!"), words("很好 ok"), words(":)")
    (['strasse', 'so', 'good'], ['很', '好', 'ok'], [':', ')'])
    """
    normal = unicodedata.normalize("NFKC", text).casefold()
    return WORD.findall(normal) or list("".join(normal.split()))


@dataclass(frozen=True, eq=False)
class Words:
    """Hashed words of many texts, end to end: text i is `hashes[offsets[i]:offsets[i + 1]]`; `keys` (texts,) uint64
    is one hash for each whole text, equal where the texts are equal in words; `content` (texts,) float64 is how much
    each says, in words: a Chinese, Japanese or Korean character is half of one."""

    hashes: np.ndarray
    offsets: np.ndarray
    keys: np.ndarray
    content: np.ndarray

    @staticmethod
    def of(texts: Iterable[str]) -> Words:
        """Hash texts."""
        known: dict[str, int] = {}
        flat: list[int] = []
        offsets = [0]
        content = []
        for text in texts:
            found = words(text)
            content.append(sum(CHARACTER if IS_CHARACTER.match(word) else 1.0 for word in found))
            for word in found:
                value = known.get(word)
                if value is None:
                    value = known[word] = _hash(word)
                flat.append(value)
            offsets.append(len(flat))
        hashes, ends = np.array(flat, dtype=np.uint64), np.array(offsets, dtype=np.int64)
        return Words(hashes, ends, _keys(hashes, ends), np.array(content, dtype=np.float64))

    @property
    def lengths(self) -> np.ndarray:
        """(texts,) int64: words in each text."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: np.ndarray) -> Words:
        """The texts `rows` (n,) int64."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        where = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Words(self.hashes[where], offsets, self.keys[rows], self.content[rows])


def _hash(word: str) -> int:
    """64 bits of a word, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class _Rolling:
    """Hashes of any window of a run of words: `sums` (words + 1,), `inverse` (words + 1,) the base to the power -i."""

    sums: np.ndarray
    inverse: np.ndarray

    @staticmethod
    def over(hashes: np.ndarray) -> _Rolling:
        n = len(hashes)
        with np.errstate(over="ignore"):
            powers = np.cumprod(np.concatenate([[np.uint64(1)], np.full(n, BASE)]).astype(np.uint64))
            inverse = np.cumprod(np.concatenate([[np.uint64(1)], np.full(n, BASE_INVERSE)]).astype(np.uint64))
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes * powers[:n], dtype=np.uint64)])
        return _Rolling(sums, inverse)

    def windows(self, starts: np.ndarray, lengths: np.ndarray | int) -> np.ndarray:
        """Hash of the `lengths` words from each of `starts` (n,) -> (n,) uint64."""
        with np.errstate(over="ignore"):
            difference = self.sums[starts + lengths] - self.sums[starts]
            return np.asarray(difference * self.inverse[starts], dtype=np.uint64)


def _keys(hashes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """One hash for each text, (texts,) uint64."""
    keys = np.zeros(len(offsets) - 1, dtype=np.uint64)
    for first, last in _blocks(offsets):
        rolling = _Rolling.over(hashes[offsets[first] : offsets[last]])
        starts = offsets[first:last] - offsets[first]
        keys[first:last] = rolling.windows(starts, np.diff(offsets[first : last + 1]))
    return keys


def _blocks(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of texts of at most BLOCK words (or of one text)."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def find_spans(needles: Words, hay: Words) -> tuple[np.ndarray, np.ndarray]:
    """Every (needle, text of hay) where the needle is a contiguous span of the text or all of it.

    Returns two int64 arrays of equal length, indices into `needles` and `hay`, each pair once.
    """
    found: list[np.ndarray] = [np.zeros((0, 2), dtype=np.int64)]
    lengths = needles.lengths
    for first, last in _blocks(hay.offsets):
        begin = hay.offsets[first]
        rolling = _Rolling.over(hay.hashes[begin : hay.offsets[last]])
        ends = np.repeat(hay.offsets[first + 1 : last + 1] - begin, hay.lengths[first:last])
        text_of = np.repeat(np.arange(first, last), hay.lengths[first:last])
        room = ends - np.arange(len(ends))  # words from a position to the end of its text
        for length in np.unique(lengths[(lengths > 0) & (lengths <= ANCHOR)]):
            which = np.flatnonzero(lengths == length)
            starts, hits = _match(rolling, room, int(length), which, needles.keys[which])
            found.append(np.unique(np.stack([hits, text_of[starts]], axis=1), axis=0))
        which = np.flatnonzero(lengths > ANCHOR)
        if len(which):
            starts, hits = _match(rolling, room, ANCHOR, which, _openings(needles.take(which)))
            fits = room[starts] >= lengths[hits]
            starts, hits = starts[fits], hits[fits]
            equal = rolling.windows(starts, lengths[hits]) == needles.keys[hits]
            found.append(np.unique(np.stack([hits[equal], text_of[starts[equal]]], axis=1), axis=0))
    pairs = np.concatenate(found)
    return pairs[:, 0], pairs[:, 1]


def _openings(needles: Words) -> np.ndarray:
    """Hash of the first ANCHOR words of each needle, (needles,) uint64."""
    starts = needles.offsets[:-1]
    where = (starts[:, None] + np.arange(ANCHOR)).ravel()
    offsets = np.arange(len(needles) + 1, dtype=np.int64) * ANCHOR
    return _keys(needles.hashes[where], offsets)


def _match(
    rolling: _Rolling, room: np.ndarray, length: int, which: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions whose window of `length` words has the hash of a needle, and that needle: one entry for each match."""
    starts = np.flatnonzero(room >= length)
    windows = rolling.windows(starts, length)
    # A bit table throws out nearly every window before the costly binary search.
    sieve = np.zeros(1 << SIEVE_BITS, dtype=bool)
    sieve[keys >> np.uint64(64 - SIEVE_BITS)] = True
    passed = sieve[windows >> np.uint64(64 - SIEVE_BITS)]
    starts, windows = starts[passed], windows[passed]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    low = np.searchsorted(ordered, windows, side="left")
    counts = np.searchsorted(ordered, windows, side="right") - low
    offsets = np.cumsum(counts) - counts
    slots = np.repeat(low - offsets, counts) + np.arange(int(counts.sum()))
    return np.repeat(starts, counts), which[order[slots]]
