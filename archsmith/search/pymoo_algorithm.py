"""NSGA-II of pymoo (Blank & Deb 2020) as a strategy, with its own operators for integers: for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.asktell import AskTell, Values, asked_and_told
from archsmith.space import Architecture, Space
from archsmith.trial import Strategy

BAD = 1e12  # what a failed trial is told to have: pymoo knows no failures


def pymoo_nsga2(objectives: Sequence[str], *, budget: int = 100, population: int | None = None) -> Strategy:
    """pymoo's NSGA-II; a population of a tenth of the budget, 10 to 100, unless told.

    Raises `BadInput` where the package is not installed.
    """
    try:
        import pymoo.algorithms.moo.nsga2  # noqa: F401
    except ImportError as error:
        raise BadInput("pymoo needs its package", "none", "", "pip install 'archsmith[compared]'") from error
    size = int(np.clip(budget // 10, 10, 100)) if population is None else population
    return asked_and_told(objectives, lambda space, seed: _Algorithm(space, len(objectives), size, seed))


class _Algorithm(AskTell):
    def __init__(self, space: Space, objectives: int, size: int, seed: int) -> None:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling

        self._space = space
        most = [len(choice.values) - 1 for choice in space.choices.values()]
        problem = Problem(n_var=len(most), n_obj=objectives, xl=0, xu=np.array(most), vtype=int)
        self._algorithm: Any = NSGA2(
            pop_size=size,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
            mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
            eliminate_duplicates=True,
        )
        self._algorithm.setup(problem, seed=seed, termination=("n_gen", 10**9), verbose=False)
        self._asked: Any = None

    def ask(self) -> list[Architecture]:
        """The next generation, each point the nearest that the space allows."""
        if self._asked is None:
            self._asked = self._algorithm.ask()
        if self._asked is None or self._asked.get("X") is None:  # it knows no point any more that is new
            return []
        return [self._point(row) for row in self._asked.get("X").astype(int)]

    def tell(self, values: Sequence[Values | None]) -> None:
        """The generation's values."""
        count = self._algorithm.problem.n_obj
        self._asked.set("F", np.array([[BAD] * count if each is None else each for each in values], dtype=float))
        self._algorithm.tell(infills=self._asked)
        self._asked = None

    def _point(self, row: np.ndarray) -> Architecture:
        values = {name: choice.values[at] for (name, choice), at in zip(self._space.choices.items(), row, strict=True)}
        found = Architecture(values)
        return found if found in self._space else self._space.decode(self._space.encode(values))
