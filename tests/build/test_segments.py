"""Segments: which channels of a concatenation come from where."""

from __future__ import annotations

import numpy as np
import pytest

from archsmith.build import Signal, known_space, pieces, planned
from archsmith.build.segments import Segments, segments
from archsmith.space import JSON

PICTURE, SERIES = Signal((3, 6, 6)), Signal((5, 4))
TWO: JSON = {"concat": [{"conv": {"out": 4}}, {"conv": {"out": 8}}]}
GRAPH: JSON = {"graph": {"nodes": [
    {"name": "a", "from": ["in"], "of": {"conv": {"out": 2}}},
    {"name": "b", "from": ["in", "a"], "of": ["skip", "relu"], "join": "concat"},
    {"name": "c", "from": ["b"], "of": {"conv": {"out": 7}}},
]}}  # fmt: skip
CASES: dict[str, tuple[JSON, Signal, Segments]] = {
    "what mixes channels ends them": ([TWO, {"conv": {"out": 6}}], PICTURE, ((1, 6, 1),)),
    "what goes channel by channel keeps them": (
        [TWO, "batch_norm", {"depthwise": {}}, "relu"], PICTURE, ((1, 4, 1), (1, 8, 1))),
    "a depthwise convolution written in groups too": (
        [TWO, {"conv": {"out": "in", "groups": "in"}}], PICTURE, ((1, 4, 1), (1, 8, 1))),
    "groups": ([{"conv": {"out": 6, "groups": 3}}], PICTURE, ((1, 2, 1),) * 3),
    "places of a picture": ([TWO, "flatten"], PICTURE, ((1, 4, 36), (1, 8, 36))),
    "places of a series": (["flatten"], SERIES, ((5, 4, 1),)),
    "both directions": ([{"lstm": {"out": 3, "both": True}}], SERIES, ((1, 3, 1), (1, 3, 1))),
    "half the size": ([{"resample": {"out": 5}}], PICTURE, ((1, 2, 1), (1, 3, 1))),
    "a residual": ([TWO, {"residual": "batch_norm"}], PICTURE, ((1, 4, 1), (1, 8, 1))),
}  # fmt: skip


@pytest.mark.parametrize(("part", "signal", "gives"), CASES.values(), ids=CASES)
def test_what_comes_out_of_a_part(part: JSON, signal: Signal, gives: Segments) -> None:
    assert segments(planned([part, "skip"], signal))["network/1"] == gives


def test_a_node_that_puts_together_what_others_give() -> None:
    found = segments(planned(GRAPH, PICTURE))
    assert found["network/c"] == ((1, 3, 1), (1, 2, 1))


@pytest.mark.parametrize("name", ["nb201", "darts", "enas-macro", "mobile", "chain"])
def test_segments_are_all_channels(name: str) -> None:
    declared = known_space(name)
    for seed in range(5):
        point = declared.space.sample(np.random.default_rng(seed))
        plan = planned(declared.static(point, {"classes": 10}), Signal((3, 64, 64)))
        found = segments(plan)
        for piece in pieces(plan):
            assert sum(b * c * a for b, c, a in found[piece.path]) == piece.gets.channels
