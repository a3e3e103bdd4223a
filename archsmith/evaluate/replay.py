"""A search on a table: proposals are looked up, so that thousands of searches take minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archsmith.errors import BadInput
from archsmith.evaluate.tabular import Lookup, Table
from archsmith.trial import Strategy, Trial

FAILING = 20  # times the budget in trials, after which a search that finds nothing valid is given up


@dataclass(frozen=True, eq=False)
class Replay:
    """One search, trial by trial.

    `values` (trials, objectives): what the strategy was told, minimised; `reported` (trials, columns): other columns of
    the same architectures, which it never saw; failed trials are left out. `cost` (trials,): whole evaluations spent up
    to and with each; `whole` (trials,): whether it was measured in full; `seconds`: that the strategy took for its
    proposals; `history`: the trials themselves.
    """

    values: np.ndarray
    reported: np.ndarray
    cost: np.ndarray
    whole: np.ndarray
    seconds: float
    history: tuple[Trial, ...] = ()

    def best_at(self, budgets: Sequence[float]) -> list[int | None]:
        """The trial that is best in the one objective within each budget of whole evaluations; None where there is
        none yet."""
        found: list[int | None] = []
        finite = np.isfinite(self.values[:, 0])  # argmin takes NaN for the least
        for budget in budgets:
            able = np.flatnonzero(self.whole & finite & (self.cost <= budget + 1e-9))
            found.append(int(able[np.argmin(self.values[able, 0])]) if len(able) else None)
        return found


def replay(
    table: Table,
    strategy: Strategy,
    objectives: Sequence[str],
    *,
    budget: float,
    seed: int,
    report: Sequence[str] = (),
) -> Replay:
    """Search a table until `budget` whole evaluations are spent or the strategy has nothing left.

    A trial of a fidelity "epochs" costs its share of a whole evaluation's; one that computes the same as an earlier one
    (a row of the table that is known) costs nothing. What is no architecture of the table is a failed trial that costs
    nothing. Trial k is proposed with `default_rng([seed, k])`, as in a study.
    """
    evaluate, history = Lookup(table, tuple(objectives)), list[Trial]()
    reported, cost, whole = list[list[float]](), list[float](), list[bool]()
    epochs = table.epochs[-1] if table.epochs else None
    spent = took = 0.0
    paid = set[tuple[int, float]]()
    while spent < budget - 1e-9 and len(history) < FAILING * budget:
        rng = np.random.default_rng([seed, len(history)])
        began = time.perf_counter()
        proposals = strategy(table.space, history, 1, rng)
        took += time.perf_counter() - began
        if not proposals:
            break
        proposal = proposals[0]
        given = proposal.fidelity.get("epochs", math.inf)
        share = 1.0 if epochs is None else min(1.0, given / epochs)
        try:
            values = evaluate(proposal, rng)
        except BadInput as error:
            history.append(Trial(len(history), proposal, "failed", {}, seed, error=str(error)))
            continue
        measured = (table.row_of(proposal.architecture), share)
        spent += 0.0 if measured in paid else share
        if spent > budget + 1e-9:
            break
        paid.add(measured)
        history.append(Trial(len(history), proposal, "complete", values, seed))
        found = table.values(proposal.architecture, tuple(report))
        reported.append([found[name] for name in report])
        cost.append(spent)
        whole.append(share == 1.0)
    done = [trial for trial in history if trial.status == "complete"]
    told = np.array([[trial.values[name] for name in objectives] for trial in done])
    return Replay(
        told.reshape(len(done), len(objectives)),
        np.array(reported).reshape(len(reported), len(report)),
        np.array(cost),
        np.array(whole, dtype=bool),
        took,
        tuple(history),
    )


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """What points (n, m), all minimised, dominate below a reference point: an area, or with m = 3 a volume, and so on.

    By slices of the last objective, for fronts of hundreds of points and few objectives (Zitzler 1999).

    >>> hypervolume(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]]), (3.0, 3.0))
    3.0
    >>> hypervolume(np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]]), (3.0, 3.0, 3.0))
    9.0
    """
    inside = front_of(points[np.all(points < np.asarray(reference), axis=1)])
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[np.argsort(inside[:, -1], kind="stable")]
    heights = np.diff(np.append(inside[:, -1], reference[-1]))
    slices = (hypervolume(inside[: i + 1, :-1], reference[:-1]) for i in np.flatnonzero(heights))
    return float(sum(heights[i] * area for i, area in zip(np.flatnonzero(heights), slices, strict=True)))


def front_of(points: np.ndarray) -> np.ndarray:
    """The points (k, m) of (n, m), minimised, that no other dominates, each once."""
    found = np.empty((0, points.shape[1]))
    for point in np.unique(points, axis=0):  # in an order in which none is dominated by a later one
        if not np.all(found <= point, axis=1).any():
            found = np.vstack([found, point])
    return found
