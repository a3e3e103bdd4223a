"""SMAC3 (Lindauer et al. 2022) as a strategy, its facade for hyper-parameters as it comes: for comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archsmith.errors import BadInput
from archsmith.search.asktell import AskTell, Values, asked_and_told
from archsmith.space import Architecture, Space, Value
from archsmith.trial import Strategy


def smac(objectives: Sequence[str], *, budget: int = 100) -> Strategy:
    """SMAC's random forest and expected improvement, with its own first design for the budget.

    Raises `BadInput` where the package is not installed.
    """
    try:
        import ConfigSpace  # noqa: F401
        from smac import HyperparameterOptimizationFacade  # noqa: F401
    except ImportError as error:
        raise BadInput("SMAC needs its package", "none", "", "pip install 'archsmith[compared]'") from error
    return asked_and_told(objectives, lambda space, seed: _Facade(space, objectives, budget, seed))


class _Facade(AskTell):
    def __init__(self, space: Space, objectives: Sequence[str], budget: int, seed: int) -> None:
        from smac import HyperparameterOptimizationFacade, Scenario

        self._space = space
        self._folder = tempfile.TemporaryDirectory()  # SMAC writes what it does; nobody reads it
        # It is asked for more than the budget: it gives up once its own count is reached, and repeats some points.
        scenario = Scenario(
            _configurations(space),
            objectives=list(objectives) if len(objectives) > 1 else objectives[0],
            n_trials=10 * budget,
            deterministic=True,
            seed=seed,
            output_directory=Path(self._folder.name),
        )
        design = HyperparameterOptimizationFacade.get_initial_design(scenario, n_configs=max(1, budget // 4))
        self._facade: Any = HyperparameterOptimizationFacade(
            scenario, None, initial_design=design, overwrite=True, logging_level=False
        )
        self._asked: Any = None
        self._worst: Values = (0.0,) * len(objectives)

    def ask(self) -> list[Architecture]:
        """One point, the nearest that the space allows; none once it finds nothing new."""
        from smac.main.exceptions import ConfigurationSpaceExhaustedException

        if self._asked is None:
            try:
                self._asked = self._facade.ask()
            except (ConfigurationSpaceExhaustedException, StopIteration):  # once, and whenever it is asked again
                return []
        given = dict(self._asked.config)
        values: dict[str, Value] = {}
        for name in self._space.order:
            choice = self._space.choices[name]
            if choice.when is None or (choice.when.name in values and choice.when.holds(values[choice.when.name])):
                values[name] = choice.values[int(given.get(name, 0))]
        found = Architecture(values)
        return [found if found in self._space else self._space.decode(self._space.encode(values))]

    def tell(self, values: Sequence[Values | None]) -> None:
        """Its values; a failed one is told to be as bad as the worst."""
        from smac.runhistory.dataclasses import TrialValue
        from smac.runhistory.enumerations import StatusType

        (found,) = values
        self._worst = tuple(max(pair) for pair in zip(self._worst, found or self._worst, strict=True))
        cost = list(found or self._worst)
        status = StatusType.SUCCESS if found else StatusType.CRASHED
        self._facade.tell(self._asked, TrialValue(cost=cost if len(cost) > 1 else cost[0], status=status))
        self._asked = None


def _configurations(space: Space) -> Any:
    """Every choice as the index of its value; conditions are left to the reader of what is asked."""
    from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace, UniformIntegerHyperparameter

    found = ConfigurationSpace()
    for name, choice in space.choices.items():
        most = len(choice.values) - 1
        if choice.ordinal and most:
            found.add(UniformIntegerHyperparameter(name, 0, most))
        else:
            found.add(CategoricalHyperparameter(name, list(range(most + 1))))
    return found
