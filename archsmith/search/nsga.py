"""NSGA-II: Deb et al. 2002, "A Fast and Elitist Multiobjective Genetic Algorithm", in its steady-state form.

The best are by front, and within a front by crowding; what keeps the constraints is better than what does not, and of
two that do not, what breaks them by less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from archsmith.search.genetic import genetic_algorithm, tournament
from archsmith.trial import Strategy


def nsga2(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    population: int | None = None,
    limits: Mapping[str, float] | None = None,
) -> Strategy:
    """Binary tournaments, nine children of ten crossed, one change each; `population` is a fifth of the budget, 10 to
    100, unless told. `limits`: value -> the most that it may be."""
    alive = min(100, max(10, budget // 5)) if population is None else population
    pick = partial(tournament, size=2)
    return genetic_algorithm(objectives, budget=budget, population=alive, selection=pick, crossed=0.9, limits=limits)
