"""The best pick of one option a group when scores and costs add up: exactly, the whole front at once.

Groups are the blocks of a network (one a layer, say), options what each may become, scores the loss that each
change brings alone. G: groups, O: options of a group, F: points of the front so far, B: buckets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.space import Value

# Sorting a merged list longer than this costs more than filling the buckets; a front longer than that helps nobody.
LONGEST_MERGE, LONGEST_FRONT = 200_000, 10_000


@dataclass(frozen=True)
class Option:
    """What one group may become: its values, its score (minimised) and its cost, both added over the groups."""

    values: Mapping[str, Value]
    score: float
    cost: float


@dataclass(frozen=True)
class Pick:
    """One option a group: their values together, the sums, and which options (index in each group)."""

    values: Mapping[str, Value]
    score: float
    cost: float
    options: tuple[int, ...]


def exact_front(groups: Sequence[Sequence[Option]], resolution: float = 1e-3) -> list[Pick]:
    """Every pick that no other beats in both score and cost, ascending in cost, descending in score.

    Exact while no merge of two lists exceeds 200,000 points nor a front 10,000. Past that, costs are rounded up to
    buckets of `resolution` × E / G, where E is the sum over groups of largest minus smallest cost, and of the points
    within `resolution` × E of cost one is kept: then for each point of the true front the result has one of no larger
    score and at most 2 × `resolution` × E more cost.

    >>> layer = [Option({"a": 2}, 0.0, 5.0), Option({"a": 1}, 1.0, 2.0)]
    >>> other = [Option({"b": 2}, 0.0, 5.0), Option({"b": 1}, 3.0, 2.0)]
    >>> [(pick.cost, pick.score, dict(pick.values)) for pick in exact_front([layer, other])]
    [(4.0, 4.0, {'a': 1, 'b': 1}), (7.0, 1.0, {'a': 1, 'b': 2}), (10.0, 0.0, {'a': 2, 'b': 2})]
    """
    _check(groups)
    costs = [np.array([option.cost for option in group]) for group in groups]
    scores = [np.array([option.score for option in group]) for group in groups]
    kept = [_front(cost, score) for cost, score in zip(costs, scores, strict=True)]
    lists = [(cost[k], score[k]) for cost, score, k in zip(costs, scores, kept, strict=True)]
    exact = _merged(lists)
    chosen = _bucketed(lists, resolution) if exact is None else exact
    options_FG = np.stack([k[column] for k, column in zip(kept, chosen.T, strict=True)], axis=1)
    cost_F = sum((cost[column] for cost, column in zip(costs, options_FG.T, strict=True)), np.zeros(len(chosen)))
    score_F = sum((score[column] for score, column in zip(scores, options_FG.T, strict=True)), np.zeros(len(chosen)))
    front = _front(cost_F, score_F)
    if exact is None:
        bucket = np.floor((cost_F[front] - cost_F[front[0]]) / (resolution * _extent(lists)))
        front = front[np.append(bucket[1:] > bucket[:-1], True)]  # the last of a bucket has its least score
    return [_pick(groups, options) for options in options_FG[front].tolist()]


def exact_pick(groups: Sequence[Sequence[Option]], limit: float) -> Pick:
    """The pick of least score whose cost is at most `limit`, by mixed-integer programming (SciPy's HiGHS).

    Raises `BudgetNotReachable`, naming the least possible cost, where there is none.
    """
    _check(groups)
    floor = sum(min(option.cost for option in group) for group in groups)
    if floor > limit:
        raise BudgetNotReachable(f"a cost of {limit:g} cannot be reached; the least possible is {floor:g}")
    flat = [option for group in groups for option in group]
    member = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    one_each = (member == np.arange(len(groups))[:, None]).astype(float)
    result = milp(
        np.array([option.score for option in flat]),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(np.array([[option.cost for option in flat]]), -np.inf, limit),
        ],
        integrality=np.ones(len(flat), dtype=np.int64),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        raise BudgetNotReachable(f"the solver found no pick under {limit:g}: {result.message}")
    picked = np.array(result.x) > 0.5
    return _pick(groups, [int(np.flatnonzero(picked[member == g])[0]) for g in range(len(groups))])


def _merged(lists: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray | None:
    """(F, G) index into each list of the exact front; None where a merge would be too long."""
    cost, score = np.zeros(1), np.zeros(1)
    chosen = np.zeros((1, 0), dtype=np.int64)
    for more_cost, more_score in lists:
        if len(cost) > LONGEST_FRONT or len(cost) * len(more_cost) > LONGEST_MERGE:
            return None
        cost_FO = cost[:, None] + more_cost
        score_FO = score[:, None] + more_score
        kept = _front(cost_FO.ravel(), score_FO.ravel())
        cost, score = cost_FO.ravel()[kept], score_FO.ravel()[kept]
        before, option = np.divmod(kept, len(more_cost))
        chosen = np.column_stack([chosen[before], option])
    return chosen if len(chosen) <= LONGEST_FRONT else None


def _bucketed(lists: Sequence[tuple[np.ndarray, np.ndarray]], resolution: float) -> np.ndarray:
    """(F, G) as `_merged`, by dynamic programming over costs rounded up to whole buckets."""
    unit = resolution * _extent(lists) / len(lists)
    steps = [np.ceil((cost - cost[0]) / unit - 1e-9).astype(np.int64) for cost, _ in lists]
    best_B = np.zeros(1)
    option_GB = []
    for step, (_, score) in zip(steps, lists, strict=True):
        grown_B = np.full(len(best_B) + int(step[-1]), np.inf)
        option_B = np.zeros(len(grown_B), dtype=np.int32)
        for option, (shift, more) in enumerate(zip(step.tolist(), score.tolist(), strict=True)):
            reached, sums = grown_B[shift : shift + len(best_B)], best_B + more
            better = sums < reached
            np.copyto(reached, sums, where=better)
            np.copyto(option_B[shift : shift + len(best_B)], option, where=better)
        best_B = grown_B
        option_GB.append(option_B)
    bucket = _front(np.arange(len(best_B), dtype=float), best_B)
    columns = []
    for option_B, step in zip(reversed(option_GB), reversed(steps), strict=True):
        columns.append(option_B[bucket].astype(np.int64))
        bucket = bucket - step[columns[-1]]
    return np.stack(columns[::-1], axis=1)


def _extent(lists: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """E: largest minus smallest cost, summed over the groups."""
    return sum(float(cost[-1] - cost[0]) for cost, _ in lists)


def _front(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Indices of what nothing beats, ascending in cost; of equals the first."""
    order = np.lexsort((score, cost))
    lowest = np.minimum.accumulate(score[order])
    lower: np.ndarray = np.concatenate([lowest[:1] < np.inf, lowest[1:] < lowest[:-1]])
    indices: np.ndarray = order[lower]
    return indices


def _pick(groups: Sequence[Sequence[Option]], options: Sequence[int]) -> Pick:
    taken = [group[index] for group, index in zip(groups, options, strict=True)]
    values: dict[str, Value] = {}
    for option in taken:
        values.update(option.values)
    score, cost = sum(option.score for option in taken), sum(option.cost for option in taken)
    return Pick(values, score, cost, tuple(options))


def _check(groups: Sequence[Sequence[Option]]) -> None:
    if not groups:
        raise BadInput("an exact selection needs at least one group", "none")
    for number, group in enumerate(groups):
        if not group:
            raise BadInput("a group must have at least one option", "none", f"group {number}")
        for option in group:
            if not (math.isfinite(option.score) and math.isfinite(option.cost)):
                raise BadInput("scores and costs must be finite", f"{option.score}, {option.cost}", f"group {number}")
