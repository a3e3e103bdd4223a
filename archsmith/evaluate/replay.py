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
        for budget in budgets:
            able = np.flatnonzero(self.whole & (self.cost <= budget + 1e-9))
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

    A trial of a fidelity "epochs" costs its share of a whole evaluation's. What is no architecture of the table is a
    failed trial that costs nothing. Trial k is proposed with `default_rng([seed, k])`, as in a study.
    """
    evaluate, history = Lookup(table, tuple(objectives)), list[Trial]()
    reported, cost, whole = list[list[float]](), list[float](), list[bool]()
    epochs = table.epochs[-1] if table.epochs else None
    spent = took = 0.0
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
        spent += share
        if spent > budget + 1e-9:
            break
        try:
            values = evaluate(proposal, rng)
        except BadInput as error:
            spent -= share
            history.append(Trial(len(history), proposal, "failed", {}, seed, error=str(error)))
            continue
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
    """The area that points (n, 2), both minimised, dominate below a reference point.

    >>> hypervolume(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]]), (3.0, 3.0))
    3.0
    """
    inside = points[np.all(points < np.asarray(reference), axis=1)]
    area, last = 0.0, float(reference[1])
    for x, y in inside[np.lexsort((inside[:, 1], inside[:, 0]))]:
        if y < last:
            area += (float(reference[0]) - x) * (last - y)
            last = float(y)
    return float(area)
