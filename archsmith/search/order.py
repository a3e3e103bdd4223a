"""One order for any number of objectives: by front, and within a front by crowding (Deb et al. 2002, NSGA-II)."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice

import numpy as np

from archsmith.trial import Trial


def is_usable(trial: Trial, objectives: Sequence[str]) -> bool:
    """Whether a trial is complete and all of its objectives are finite numbers."""
    return trial.status == "complete" and all(math.isfinite(trial.values.get(name, math.nan)) for name in objectives)


def usable(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """The trials that a strategy can learn from, oldest first."""
    if len(objectives) == 1:  # asked of every trial for every proposal: a generator each takes three times as long
        name, isfinite, nothing = objectives[0], math.isfinite, math.nan
        return [t for t in trials if t.status == "complete" and isfinite(t.values.get(name, nothing))]
    return [trial for trial in trials if is_usable(trial, objectives)]


def youngest(trials: Sequence[Trial], objectives: Sequence[str], count: int) -> list[Trial]:
    """The last `count` complete trials whose objectives are all finite numbers, oldest first."""
    return list(islice((trial for trial in reversed(trials) if is_usable(trial, objectives)), count))[::-1]


def standing(trials: Sequence[Trial], objectives: Sequence[str]) -> np.ndarray:
    """(n,) what usable trials are compared by, minimised: their value, or with several objectives their place."""
    if len(objectives) == 1:
        return np.array([trial.values[objectives[0]] for trial in trials], dtype=float)
    points = np.array([[trial.values[name] for name in objectives] for trial in trials]).reshape(-1, len(objectives))
    return places(points).astype(float)


def places(points: np.ndarray) -> np.ndarray:
    """(n, objectives), minimised -> (n,) int64: each point's place, 0 the best, ties broken by position.

    >>> places(np.array([[2.0, 2.0], [1.0, 3.0], [3.0, 3.0]])).tolist()
    [0, 1, 2]
    """
    rank = fronts(points)
    order = np.lexsort((-spread(points, rank), rank))
    place = np.empty(len(points), dtype=np.int64)
    place[order] = np.arange(len(points))
    return place


def fronts(points: np.ndarray) -> np.ndarray:
    """(n, objectives) -> (n,) int64: 0 for what nothing dominates, 1 for what only those dominate, and so on."""
    if points.shape[1] == 2:
        return _fronts_of_two(points)
    no_worse = np.all(points[:, None] <= points[None], axis=2)
    dominates = no_worse & ~no_worse.T
    rank = np.full(len(points), -1, dtype=np.int64)
    level = 0
    while (rank < 0).any():
        left = rank < 0
        rank[left & ~np.any(dominates[left], axis=0)] = level
        level += 1
    return rank


def _fronts_of_two(points: np.ndarray) -> np.ndarray:
    """The same without comparing all pairs. Points are taken from left to right: the last of a front lies lowest in it,
    so it alone tells whether the front dominates the next, and fronts are in the order of their last ones (Jensen
    2003)."""
    rank = np.empty(len(points), dtype=np.int64)
    last: list[tuple[float, float]] = []  # of each front: second objective, then first
    order = np.lexsort((points[:, 1], points[:, 0]))
    for at, (x, y) in zip(order.tolist(), points[order].tolist(), strict=True):
        rank[at] = level = bisect_left(last, (y, x))
        last[level : level + 1] = [(y, x)]
    return rank


def spread(points: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """(n, objectives), and the front of each (n,) -> (n,): crowding distance in its own front, infinite at the ends;
    larger is lonelier."""
    distance = np.zeros(len(points))
    for column in points.T:
        order = np.lexsort((column, rank))
        sorted_, level = column[order], rank[order]
        first, last = np.diff(level, prepend=-1) != 0, np.diff(level, append=-1) != 0  # of each front, in this order
        extent = (sorted_[last] - sorted_[first])[np.cumsum(first) - 1]
        distance[order[first | last]] = np.inf
        inner = np.flatnonzero(~(first | last) & (extent > 0))
        distance[order[inner]] += (sorted_[inner + 1] - sorted_[inner - 1]) / extent[inner]
    return distance
