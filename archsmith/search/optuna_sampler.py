"""Any sampler of Optuna as a strategy: TPE, GP, CMA-ES, NSGA-II, NSGA-III and the rest (Akiba et al. 2019).

The history is put into a study in memory, which the sampler is then asked about. A choice of numbers is an integer, its
value's rank; one with strings is categorical. What a sampler keeps with a trial (its generation) goes into the note.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from archsmith.errors import BadInput, first_line
from archsmith.search.fresh import different, near
from archsmith.search.order import is_usable
from archsmith.space import Architecture, Choice, Space, Value
from archsmith.trial import Proposal, Strategy, Trial

SAMPLERS: dict[str, type[Any]] = {
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "nsga3": optuna.samplers.NSGAIIISampler,
    "qmc": optuna.samplers.QMCSampler,
}


def optuna_sampler(objectives: Sequence[str], *, sampler: str | type[Any] = "tpe", **options: Any) -> Strategy:
    """A strategy out of a sampler's name or class, and options of its constructor.

    What it proposes again, or what the space does not allow, is changed by single mutations until it is new.
    """
    if isinstance(sampler, str) and sampler not in SAMPLERS:
        raise BadInput("a sampler is one that is known", repr(sampler), "", f"there are: {', '.join(SAMPLERS)}")
    make = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
    if sampler == "cmaes" and find_spec("cmaes") is None:  # asked for only after the first random points
        raise BadInput("a sampler's package must be installed", "none", "optuna cmaes", "pip install cmaes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of options that are experimental
        try:
            make(**options)
        except (TypeError, ValueError, ImportError) as error:
            law = "a sampler must be installed and take the options given"
            raise BadInput(law, first_line(error), f"optuna {sampler}") from error

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        seeded = (
            {**options, "seed": int(rng.integers(2**31))} if "seed" in inspect.signature(make).parameters else options
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            try:
                study = _study(space, history, objectives, make(**seeded))
                return different(history, n, lambda seen: _asked(study, space, seen, rng))
            finally:
                optuna.logging.set_verbosity(before)

    return propose


def _asked(study: Any, space: Space, seen: set[Architecture], rng: np.random.Generator) -> Proposal | None:
    trial = study.ask()
    values: dict[str, Value] = {}
    for name in space.order:
        choice = space.choices[name]
        if choice.when is None or (choice.when.name in values and choice.when.holds(values[choice.when.name])):
            if choice.ordinal:
                values[name] = choice.values[trial.suggest_int(name, 0, len(choice.values) - 1)]
            else:
                values[name] = trial.suggest_categorical(name, choice.values)
    note = study._storage.get_trial(trial._trial_id).system_attrs
    point = Architecture(values)
    if point not in space:
        point = space.decode(space.encode(values))
    if point in seen:
        found = near(space, seen, point, rng)
        if found is None:
            return None
        point = found
    return Proposal(point, note={"optuna": {key: value for key, value in note.items() if _is_plain(value)}})


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, bool | int | float | str)


def _distribution(choice: Choice) -> BaseDistribution:
    if choice.ordinal:
        return IntDistribution(0, len(choice.values) - 1)
    return CategoricalDistribution(choice.values)


def _study(space: Space, history: Sequence[Trial], objectives: Sequence[str], sampler: Any) -> Any:
    """A study in memory with the history in it. It is made anew each time, since asking leaves a trial in it."""
    study = optuna.create_study(directions=["minimize"] * len(objectives), sampler=sampler)
    study.add_trials([_frozen(space, trial, objectives) for trial in history])
    return study


def _frozen(space: Space, trial: Trial, objectives: Sequence[str]) -> Any:
    values = trial.proposal.architecture
    params, distributions = {}, {}
    for name in space.order:
        if name in values:
            choice = space.choices[name]
            params[name] = choice.index(values[name]) if choice.ordinal else values[name]
            distributions[name] = _distribution(choice)
    note = trial.proposal.note if isinstance(trial.proposal.note, dict) else {}
    done = is_usable(trial, objectives)
    state = TrialState.COMPLETE if done else TrialState.RUNNING if trial.status == "running" else TrialState.FAIL
    return create_trial(
        state=state,
        params=params,
        distributions=distributions,
        values=[trial.values[name] for name in objectives] if done else None,
        system_attrs=note.get("optuna", {}),
    )
