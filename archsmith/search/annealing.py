"""Simulated annealing: Kirkpatrick, Gelatt & Vecchi 1983, "Optimization by Simulated Annealing".

A neighbour of the present point takes its place if it is better, or else with probability exp(-(E' - E) / T) (the
Metropolis rule); T falls geometrically. E: what a point loses; T: temperature, in the units of E. No point
is evaluated twice: where all neighbours have been tried, a neighbour of one of them is next.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fold import Fold
from archsmith.search.fresh import different, fresh, near
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

HOT, COLD = 0.5, 0.01  # temperature at the beginning and at the end, in spreads of what was seen


def simulated_annealing(objectives: Sequence[str], *, budget: int = 100, start: int | None = None) -> Strategy:
    """Random points first (`start`, a tenth of the budget unless told), of which the best is annealed.

    The spread that temperature is counted in is the middle half of all values seen: it has the problem's own units and
    does not mind a few very bad points. Whether a point is accepted is settled by a number drawn with its proposal.
    """
    if budget < 1:
        raise BadInput("annealing needs a budget of at least 1", str(budget))
    if start is not None and start < 1:
        raise BadInput("annealing starts with at least 1 random point", str(start))
    first = max(1, budget // 10) if start is None else start

    def step(walk: Walk, trial: Trial, reward: float) -> None:
        walk.step(trial, trial.values[objectives[0]] if len(objectives) == 1 else -reward)

    fold = Fold(objectives, lambda space: Walk(first, budget), step)

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        walk = fold.state(space, history)
        present = walk.at if len(walk.seen) >= first else None

        def choose(seen: set[Architecture]) -> Proposal | None:
            if present is None:
                point = fresh(space, seen, lambda: space.sample(rng), rng)
            else:
                point = near(space, seen, present.proposal.architecture, rng)
            parents = () if present is None else (present.number,)
            return None if point is None else Proposal(point, note={"chance": rng.random()}, parents=parents)

        return different(history, n, choose)

    return propose


class Walk:
    """Where the walk over the usable trials has come to, and all values up to there, ascending."""

    def __init__(self, first: int, budget: int) -> None:
        self.first, self.budget = first, budget
        self.at: Trial | None = None
        self.value = math.inf
        self.seen: list[float] = []

    def step(self, trial: Trial, value: float) -> None:
        """Move to the next trial or stay; of the first ones the best is the present point."""
        chance = float((trial.proposal.note or {}).get("chance", 0.0))
        begun = len(self.seen) >= self.first
        if value < self.value or (begun and chance < math.exp((self.value - value) / self.temperature)):
            self.at, self.value = trial, value
        insort(self.seen, value)

    @property
    def temperature(self) -> float:
        """T, in the units of the values."""
        progress = min(1.0, (len(self.seen) - self.first) / max(1, self.budget - self.first))
        spread = self.seen[3 * len(self.seen) // 4] - self.seen[len(self.seen) // 4]
        return max(spread, 1e-12) * HOT * math.pow(COLD / HOT, progress)
