"""In-domain texts without labels, made from the training texts, for the original model to label.

After Tang et al. 2019 ("Distilling Task-Specific Knowledge from BERT into Simple Neural Networks", section 3): random
masking and n-gram sampling (here: crops), with random dropping and splices of two texts beside them. All rows are made
at once, on flat arrays.
"""

from __future__ import annotations

import numpy as np

from archsmith.tasks.encodings import Encodings, Frame

MASKED = 0.1  # share of tokens masked, Tang et al.'s p_mask
DROPPED = 0.1  # share of tokens dropped
CROPPED = 0.25  # share of texts cut to a span, Tang et al.'s p_ng
SPLICED = 0.35  # share of texts that are the beginning of one and the end of another


def augmented(encodings: Encodings, frame: Frame, count: int, rng: np.random.Generator) -> Encodings:
    """`count` new texts: each is a text whole, a crop or a splice, and then has tokens masked or dropped.

    None is longer than the longest given. Pairs keep both texts whole and have tokens masked only (dropped in the
    same way where the tokenizer has no mask).
    """
    if frame.pair:
        return _blurred(encodings.take(rng.integers(0, len(encodings), count)), frame, rng, framed=True)
    begin = encodings.offsets[:-1] + len(frame.prefix)
    end = encodings.offsets[1:] - len(frame.suffix)
    usable = np.flatnonzero(end > begin)
    if not len(usable):
        return encodings.take(np.zeros(0, dtype=np.int64))
    longest = int((end - begin).max())
    first, second = usable[rng.integers(0, len(usable), (2, count))]
    kind = rng.random(count)
    crop, splice = kind < CROPPED, (kind >= CROPPED) & (kind < CROPPED + SPLICED)

    starts, ends = begin[first].copy(), end[first].copy()
    span = _between(np.ceil((ends - starts) / 3), ends - starts, rng)
    at = starts + _between(np.zeros(count), ends - starts - span, rng)
    starts[crop], ends[crop] = at[crop], (at + span)[crop]

    cut = starts + _between(np.ones(count), ends - starts, rng)
    ends[splice] = cut[splice]
    tail_starts, tail_ends = end[second].copy(), end[second].copy()
    tail = _between(np.ones(count), end[second] - begin[second], rng)
    tail = np.minimum(tail, longest - (ends - starts))
    tail_starts[splice] -= tail[splice]
    body = encodings.spans(_interleave(starts, tail_starts), _interleave(ends, tail_ends))
    body = Encodings(body.ids, body.offsets[::2])  # a text is its head and its tail
    return _framed(_blurred(body, frame, rng, framed=False), frame)


def _between(low: np.ndarray, high: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Integers drawn evenly from low to high, both included; arrays (n,)."""
    return np.asarray(low + rng.random(len(low)) * (high - low + 1), dtype=np.int64)


def _interleave(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([a, b], axis=1).ravel()


def _blurred(texts: Encodings, frame: Frame, rng: np.random.Generator, framed: bool) -> Encodings:
    """Mask tokens in half of the texts, drop some in the others; never the frame's own, never all of a text."""
    lengths = texts.lengths
    row = np.repeat(np.arange(len(texts)), lengths)
    hit = rng.random(len(row))
    free = np.ones(len(row), dtype=bool)
    if framed:
        free = ~np.isin(texts.ids, np.array([*frame.prefix, *frame.middle, *frame.suffix], dtype=np.int32))
    maskable = frame.mask is not None and (framed or rng.random(len(texts)) < 0.5)
    masks = np.broadcast_to(maskable, len(texts))[row]
    ids = texts.ids.copy()
    if frame.mask is not None:
        ids[masks & free & (hit < MASKED)] = frame.mask
    keep = masks | ~free | (hit >= DROPPED)
    nearest = np.zeros(len(texts), dtype=bool)
    nearest[row[keep]] = True
    keep |= ~nearest[row]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row[keep], minlength=len(texts)))]).astype(np.int64)
    return Encodings(ids[keep], offsets, None if texts.types is None else texts.types[keep])


def _framed(bodies: Encodings, frame: Frame) -> Encodings:
    """Put prefix and suffix around every text."""
    before, after = len(frame.prefix), len(frame.suffix)
    lengths = bodies.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths + before + after)]).astype(np.int64)
    ids = np.empty(int(offsets[-1]), dtype=np.int32)
    ids[offsets[:-1, None] + np.arange(before)] = np.array(frame.prefix, dtype=np.int32)
    ids[offsets[1:, None] - after + np.arange(after)] = np.array(frame.suffix, dtype=np.int32)
    ids[np.repeat(offsets[:-1] + before - bodies.offsets[:-1], lengths) + np.arange(len(bodies.ids))] = bodies.ids
    return Encodings(ids, offsets)
