"""Simulated annealing: Kirkpatrick, Gelatt & Vecchi 1983, "Optimization by Simulated Annealing".

A neighbour of the present point takes its place if it is better, or else with probability exp(-(E' - E) / T) (the
Metropolis rule); T falls geometrically. E: what a point loses; T: temperature, in the units of E.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import different, fresh
from archsmith.search.order import standing, usable
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
    first = max(1, budget // 10) if start is None else start

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        done = usable(history, objectives)
        present = walked(done, standing(done, objectives), first, budget) if len(done) >= first else None

        def choose(seen: set[Architecture]) -> Proposal | None:
            def draw() -> Architecture:
                return space.sample(rng) if present is None else space.mutate(present.proposal.architecture, rng)

            point = fresh(space, seen, draw, rng)
            parents = () if present is None else (present.number,)
            return None if point is None else Proposal(point, note={"chance": rng.random()}, parents=parents)

        return different(history, n, choose)

    return propose


def walked(done: Sequence[Trial], lost: np.ndarray, first: int, budget: int) -> Trial:
    """The present point: where the walk over the usable trials has come to."""
    values: list[float] = lost.tolist()
    ordered = sorted(values[:first])
    at = values.index(ordered[0])
    for i in range(first, len(done)):
        rise = values[i] - values[at]
        if rise > 0:
            spread = ordered[3 * len(ordered) // 4] - ordered[len(ordered) // 4]
            progress = min(1.0, (i - first) / max(1, budget - first))
            temperature = max(spread, 1e-12) * HOT * (COLD / HOT) ** progress
            rise = (
                0.0 if float((done[i].proposal.note or {}).get("chance", 0.0)) < math.exp(-rise / temperature) else rise
            )
        if rise <= 0:
            at = i
        insort(ordered, values[i])
    return done[at]
