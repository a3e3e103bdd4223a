"""Any strategy as a sampler of Optuna (Akiba et al. 2019), for studies that Optuna itself runs.

The strategy proposes before a trial begins; what the objective then suggests has the values of that proposal. The
history is read from the study's trials, each with its proposal among its user attributes, as in a study of our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from archsmith.errors import BadInput
from archsmith.space import Architecture, Space, Value
from archsmith.trial import Proposal, Status, Strategy, Trial

PROPOSAL = "proposal"  # key of a user attribute
STATUS: dict[Any, Status] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def as_sampler(
    strategy: Strategy, space: Space, objectives: Sequence[str] = ("loss",), *, seed: int | None = None
) -> StrategySampler:
    """A sampler whose trials are what the strategy proposes.

    `objectives`: the names by which the strategy was made, in the order of the study's directions; what Optuna
    maximises is told with its sign turned. The study's objective suggests the choices of the space by their names and
    values, each where it is active. Once every point was tried, points come again, at random. Raises `BadInput`, from
    within the study, for a parameter or a number of directions that is another.

    >>> from archsmith.search import regularised_evolution
    >>> from archsmith.space import Choice
    >>> sampler = as_sampler(regularised_evolution(["loss"]), Space({"depth": Choice([2, 4, 8])}), seed=0)
    >>> study = optuna.create_study(sampler=sampler)
    >>> study.optimize(lambda trial: abs(trial.suggest_int("depth", 2, 8, step=2) - 5) + 0.5, n_trials=3)
    >>> sorted(trial.params["depth"] for trial in study.trials)
    [2, 4, 8]
    """
    return StrategySampler(strategy, space, objectives, int(np.random.SeedSequence(seed).generate_state(1)[0]))


class StrategySampler(optuna.samplers.BaseSampler):  # type: ignore[misc]  # mypy does not read Optuna
    """Made by `as_sampler`; trial k is proposed with `default_rng([seed, k])`."""

    def __init__(self, strategy: Strategy, space: Space, objectives: Sequence[str], seed: int) -> None:
        self._strategy, self._space, self._objectives, self._seed = strategy, space, tuple(objectives), seed
        self._turn = Lock()  # `optimize(n_jobs=...)` has threads: the next must see what this one proposes

    def before_trial(self, study: Any, trial: FrozenTrial) -> None:
        """Ask the strategy, and leave its proposal with the trial."""
        if len(study.directions) != len(self._objectives):
            law = "a study has a direction for each objective of its sampler"
            raise BadInput(law, f"{len(study.directions)} for {', '.join(self._objectives)}", "", "name the objectives")
        with self._turn:
            rng = np.random.default_rng([self._seed, trial.number])
            proposals = self._strategy(self._space, self._history(study, trial.number), 1, rng)
            proposal = proposals[0] if proposals else Proposal(self._space.sample(rng))
            trial.set_user_attr(PROPOSAL, proposal.to_json())  # what the objective sees
            study._storage.set_trial_user_attr(trial._trial_id, PROPOSAL, proposal.to_json())

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, Any]:
        """Nothing: every parameter is taken from the proposal, whatever kind it is suggested as."""
        return {}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Value:
        """The proposal's value of one choice."""
        if param_name not in self._space.choices:
            known = f"there are: {', '.join(self._space.choices)}"
            raise BadInput("what a trial suggests is a choice of the space", repr(param_name), "", known)
        values = Proposal.from_json(trial.user_attrs[PROPOSAL]).architecture
        if param_name in values:
            value = values[param_name]
        elif "fixed_params" in trial.system_attrs:  # the user's own values have led where the proposal does not
            listed = self._space.choices[param_name].values
            value = listed[int(np.random.default_rng([self._seed, trial.number]).integers(len(listed)))]
        else:
            raise BadInput("what a trial suggests is a choice that is active", repr(param_name), f"{dict(values)}")
        if not _holds(param_distribution, value):
            law = "what is suggested has the values that its choice has"
            raise BadInput(law, f"{value!r}, not of {param_distribution}", param_name)
        return value

    def _history(self, study: Any, before: int) -> list[Trial]:
        found: list[Trial] = []
        for trial in study.get_trials(deepcopy=False, states=tuple(STATUS)):
            if trial.number != before and (proposal := self._proposal(trial)) is not None:
                status = STATUS[trial.state]
                told: Mapping[str, float] = {}
                if status == "complete":
                    signs = [-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in study.directions]
                    signed = [sign * value for sign, value in zip(signs, trial.values, strict=True)]
                    told = Told(dict(zip(self._objectives, signed, strict=True)))
                found.append(Trial(trial.number, proposal, status, told, self._seed))
        return found

    def _proposal(self, trial: FrozenTrial) -> Proposal | None:
        """What a trial ran: its proposal, unless its parameters say otherwise (they were given by the user, or it comes
        from another sampler); None where they are no point of the space."""
        data = trial.user_attrs.get(PROPOSAL)
        proposal = None if data is None else Proposal.from_json(data)
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if proposal is not None and (not ended or _agrees(proposal.architecture, trial.params)):
            return proposal
        values: dict[str, Value] = {}
        for name, choice in self._space.choices.items():
            if name in trial.params:  # 8.0 of `suggest_float` is the choice's 8
                given = trial.params[name]
                alike = [v for v in choice.values if v == given and isinstance(v, bool) == isinstance(given, bool)]
                if not alike:
                    return None
                values[name] = alike[0]
        point = Architecture(values)
        return Proposal(point) if point in self._space else None


class Told(Mapping[str, float]):
    """Values by the names of the objectives. A strategy that was made for another name is told so; it would take every
    trial for a failed one."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> float:
        if name not in self._values:
            law, remedy = "a sampler is told the objectives that its strategy reads", "give `objectives`"
            raise BadInput(law, f"{', '.join(self._values)}, not {name}", "as_sampler", remedy)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _agrees(point: Architecture, params: Mapping[str, Any]) -> bool:
    """Whether nothing was suggested otherwise; what has one value alone, or was never asked for, says nothing."""
    return all(name in point and point[name] == value for name, value in params.items())


def _holds(distribution: Any, value: Value) -> bool:
    """Whether a distribution can give a value."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False
