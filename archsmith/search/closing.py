"""Close in on the cheapest point of a front that keeps a bound: bisection, since along a front what is lost falls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from archsmith.search.fresh import different, fresh
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

STEP = 0.65  # from one cost to the next while only one end is known


def closing_in(front: Sequence[tuple[float, Architecture]], objective: str, limit: float, first: float) -> Strategy:
    """The cheapest of `front` (cost above 0, architecture) whose `objective` is at most `limit`.

    It begins at the share `first` of the dearest cost, and goes on halfway (in logarithms) between the dearest that
    was found to miss the limit and the cheapest dearer one that kept it; where one of the two is not known yet, by the
    factor `STEP`. When no point is left between them: single changes of the latter, at random.
    """
    ordered = sorted(front, key=lambda pair: pair[0])

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        points = [(cost, each) for cost, each in ordered if each in space]
        lost = {t.proposal.architecture: t.values[objective] for t in history if t.status == "complete"}
        low, high = brackets(points, lost, limit)

        def near() -> Architecture:
            return space.mutate(points[min(high, len(points) - 1)][1], rng) if points else space.sample(rng)

        def choose(seen: set[Architecture]) -> Architecture | None:
            between = [point for point in points[low + 1 : high] if point[1] not in seen]
            if not between:
                return fresh(space, seen, near, rng)
            goal = middle(points, low, high, first if not lost else None)
            return min(between, key=lambda point: abs(math.log(point[0] / goal)))[1]

        return different(history, n, choose)

    return propose


def brackets(
    points: Sequence[tuple[float, Architecture]], lost: dict[Architecture, float], limit: float
) -> tuple[int, int]:
    """Index of the dearest point that misses the limit (-1: none), and of the cheapest dearer one that keeps it."""
    known = [(at, lost[each] <= limit) for at, (_, each) in enumerate(points) if each in lost]
    low = max((at for at, keeps in known if not keeps), default=-1)
    high = min((at for at, keeps in known if keeps and at > low), default=len(points))
    return low, high


def middle(points: Sequence[tuple[float, Architecture]], low: int, high: int, first: float | None) -> float:
    """The cost to try next, between the point that misses the limit and the one that keeps it."""
    if first is not None:
        return first * points[-1][0]
    if low < 0:
        return STEP * points[min(high, len(points) - 1)][0]
    if high >= len(points):
        return points[low][0] / STEP
    return math.sqrt(points[low][0] * points[high][0])
