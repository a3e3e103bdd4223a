"""Proposals that have not been made before."""

from __future__ import annotations

import numpy as np
import pytest

from archsmith.search import strategy
from archsmith.search.fresh import near
from archsmith.space import Architecture, Choice, Space
from archsmith.trial import Proposal, Trial

SPACE = Space({f"c{i}": Choice(["a", "b", "c", "d"]) for i in range(8)})
BEST = Architecture(dict.fromkeys(SPACE.order, "a"))


def apart(a: Architecture, b: Architecture) -> int:
    return sum(a[name] != b[name] for name in SPACE.order)


def test_neighbours_come_first_and_what_lies_behind_them_after() -> None:
    rng = np.random.default_rng(0)
    around = list(SPACE.neighbours(BEST))
    last = around.pop(3)
    assert all(near(SPACE, {BEST, *around}, BEST, rng) == last for _ in range(20))
    behind = [near(SPACE, {BEST, last, *around}, BEST, rng) for _ in range(50)]
    assert 2 <= np.mean([apart(BEST, point) for point in behind if point]) < 3


@pytest.mark.parametrize("name", ["annealing", "genetic"])
def test_search_stays_near_where_all_neighbours_are_known(name: str) -> None:
    # The best point, all around it, and enough of the same kind that a population is full: what follows is near.
    points = [BEST, *SPACE.neighbours(BEST)]
    history = [
        Trial(i, Proposal(p, note={"chance": 1.0}), "complete", {"loss": float(i > 0)}) for i, p in enumerate(points)
    ]
    made = strategy(name, ["loss"], budget=len(points))
    far = [apart(BEST, made(SPACE, history, 1, np.random.default_rng(seed))[0].architecture) for seed in range(30)]
    # A point at random differs in 6 of 8.
    assert 2 <= np.mean(far) < 3.5
