"""Proposals that have not been made before."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from archsmith.search import strategy
from archsmith.search.fresh import onward
from archsmith.space import Architecture, Choice, Space
from archsmith.trial import Proposal, Trial

SPACE = Space({f"c{i}": Choice(["a", "b", "c", "d"]) for i in range(8)})
BEST = Architecture(dict.fromkeys(SPACE.order, "a"))


def apart(a: Architecture, b: Architecture) -> int:
    return sum(a[name] != b[name] for name in SPACE.order)


def test_draws_by_steps_lead_on_from_one_another() -> None:
    rng = np.random.default_rng(0)
    draw = onward(BEST, lambda point: SPACE.mutate(point, rng))
    walk = [BEST, *(draw() for _ in range(20))]
    assert [apart(a, b) for a, b in pairwise(walk)] == [1] * 20
    assert max(apart(BEST, point) for point in walk) > 2


@pytest.mark.parametrize("name", ["annealing", "genetic", "evolution"])
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
