"""Where the channels that a module gets come from: those of a concatenation lie side by side in segments.

Who makes a module of fewer channels out of one of more takes the first channels of each segment, not of all together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archsmith.build.pieces import width
from archsmith.build.plan import INPUT, Graph, Joined, Part, Piece, Weighed

Segment = tuple[int, int, int]  # channel c of it is at (before, c, after) of a block in row-major order
Segments = tuple[Segment, ...]
MIXING = ("conv", "embedding", "gru", "linear", "lstm", "patches", "project", "resample", "separable", "transposed")


def segments(plan: Part) -> dict[str, Segments]:
    """By its place, the segments of what each module of a plan gets; together they are all its channels.

    >>> from archsmith.build import Signal, planned
    >>> two = {"concat": [{"conv": {"out": 4}}, {"conv": {"out": 8}}]}
    >>> segments(planned([two, "relu", {"conv": {"out": 2}}], Signal((3, 5, 5))))["network/2"]
    ((1, 4, 1), (1, 8, 1))
    """
    found: dict[str, Segments] = {}
    _through(plan, ((),), found)
    return found


def _through(part: Part, gets: Sequence[Segments], found: dict[str, Segments]) -> Segments:
    """What a part gives; `gets`: one for each of its inputs."""
    if isinstance(part, Piece):
        own = gets[0] if _channels(gets[0]) == part.gets.channels else ((1, part.gets.channels, 1),)
        found[part.path] = own
        return _given(part, own)
    if isinstance(part, Weighed):
        return _through(part.part, gets, found)
    if isinstance(part, Joined):
        return _joined(part, [gets] * len(part.parts), found)
    if isinstance(part, Graph):
        known = {f"{INPUT}{i}": each for i, each in enumerate(gets)} | {INPUT: gets[0]}
        for node in part.nodes:
            asked = [known[read] for read in node.reads]
            each = [[one] for one in asked] if node.joined.how else [asked]
            known[node.name] = _joined(node.joined, each, found)
        return known[part.nodes[-1].name]
    for inner in part.parts:
        gets = [_through(inner, gets, found)]
    return gets[0]


def _joined(part: Joined, gets: Sequence[Sequence[Segments]], found: dict[str, Segments]) -> Segments:
    given = [_through(inner, each, found) for inner, each in zip(part.parts, gets, strict=True)]
    if part.how == "concat":
        return tuple(segment for each in given for segment in each)
    return given[-1] if part.how == "attend" else given[0]


def _given(piece: Piece, own: Segments) -> Segments:
    """The segments of what a module gives."""
    options: Mapping[str, Any] = json.loads(piece.options)
    whole = piece.gives.channels
    if piece.kind == "flatten":
        if len(piece.gets.shape) == 3 and all(after == 1 for _, _, after in own):
            return tuple((before, channels, whole // piece.gets.channels) for before, channels, _ in own)
        if len(piece.gets.shape) == 2 and own == ((1, piece.gets.channels, 1),):
            return ((piece.gets.shape[0], piece.gets.channels, 1),)
        return own if _channels(own) == whole else ((whole, 1, 1),)
    if piece.kind == "resample":
        return (1, whole // 2, 1), (1, whole - whole // 2, 1)
    parts = 2 if options.get("both") is True else 1
    if piece.kind == "conv":
        groups = width(options.get("groups", 1), piece.gets)
        if groups == piece.gets.channels == whole:
            return own
        parts = groups if isinstance(options.get("groups"), int) else 1
    if piece.kind == "ngrams":
        parts = len(options.get("lengths", (2,)))
    if piece.kind in MIXING or _channels(own) != whole:
        return ((1, whole // parts, 1),) * parts
    return own


def _channels(own: Segments) -> int:
    return sum(before * channels * after for before, channels, after in own)
