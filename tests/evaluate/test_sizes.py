"""The largest and the smallest network of a space are those of all its points."""

from __future__ import annotations

import numpy as np
import pytest

from archsmith.build import Declared, known_space
from archsmith.build.plan import Part as Plan
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.sizes import extremes

OPS = {"wide": {"conv": {"out": "in", "kernel": "$k"}}, "point": {"conv": {"out": "in", "kernel": 1}}, "skip": "skip"}
END = ["mean", {"linear": {"out": "$classes"}}]
LAYERS = {"repeat": "$n", "name": "layer", "of": [{"pick": "$op", "of": OPS}, "batch_norm"]}
SEES = {"layers": [{"conv": {"out": "$a"}}, LAYERS, {"conv": {"out": 64}}], "one": {"conv": {"out": 64, "kernel": 5}}}
SPACES = {
    "operators": Declared({"a": [4, 8, 16], "n": [0, 1, 2], "op": list(OPS), "k": [3, 5]},
                          [{"conv": {"out": "$a"}}, LAYERS, *END]),
    # What is smaller at the largest has more weights than the smallest of what is larger there.
    "one in place of layers": Declared(
        {"sees": list(SEES), "a": [1, 8, 64], "n": [0, 1, 2], "op": list(OPS), "k": [3, 5]},
        [{"pick": "$sees", "of": SEES}, *END]),
    "only drawn by chance": Declared({"a": list(range(1, 50)), "b": list(range(1, 50))},
                                     [{"conv": {"out": "$a"}}, {"conv": {"out": "$b"}}, *END]),
}  # fmt: skip


def size(plan: Plan) -> tuple[float, float]:
    costs = paper_costs(plan)
    return costs["parameters"], costs["macs"]


@pytest.mark.parametrize("name", SPACES)
def test_largest_and_smallest_are_those_of_all_points(ground: Ground, name: str) -> None:
    space = SPACES[name]
    every = [size(ground.plan(space, point, prune=False)) for point in space.space.points()]
    for seed in range(3):
        rng = np.random.default_rng(seed)
        largest, smallest = extremes(ground, space, [ground.drawn(space, rng, prune=False) for _ in range(20)])
        assert (size(largest), size(smallest)) == (max(every), min(every))


def test_of_operators_the_largest_has_most_weights(ground: Ground) -> None:
    space = known_space("nb201")
    drawn = [ground.drawn(space, np.random.default_rng(seed), prune=False) for seed in range(4)]
    largest, smallest = extremes(ground, space, drawn)
    for op, found in (("nor_conv_3x3", largest), ("none", smallest)):
        point = dict.fromkeys(space.space.order, op)
        assert size(found) == size(ground.plan(space, point, prune=False))
