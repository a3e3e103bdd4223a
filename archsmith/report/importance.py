"""What a search has learnt of its space: which choices matter, and which of their values live and die."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from archsmith.report.story import Life
from archsmith.space import Space
from archsmith.trial import Trial

ENOUGH, MOST = 12, 300  # trials, below which nothing is said of which choices matter, and that are looked at
PERIODS = 3  # of the search, in which values live or die


def importances(done: Sequence[Trial], space: Space, objective: str) -> dict[str, float]:
    """Choice -> its share of what makes the objective vary (fANOVA, Hutter et al. 2014, as Optuna has it), most first;
    choices that are not active in every trial are left out. Empty where there are too few trials to tell."""
    rows = [trial for trial in done if math.isfinite(trial.values.get(objective, math.nan))]
    rows = rows[:: max(1, -(-len(rows) // MOST))]  # the time that it takes grows with them
    always = [
        name
        for name, choice in space.choices.items()
        if choice.when is None and len(choice.values) > 1 and len({t.proposal.architecture[name] for t in rows}) > 1
    ]
    if len(rows) < ENOUGH or not always or len({trial.values[objective] for trial in rows}) < 2:
        return {}
    if len(always) == 1:
        return {always[0]: 1.0}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        distributions = {name: CategoricalDistribution(space.choices[name].values) for name in always}
        for trial in rows:
            picked = {name: trial.proposal.architecture[name] for name in always}
            study.add_trial(create_trial(params=picked, distributions=distributions, value=trial.values[objective]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(before)
    return dict(found)


def lives(done: Sequence[Trial], space: Space, names: Sequence[str], objective: str) -> dict[str, tuple[Life, ...]]:
    """Of each value of these choices: how often it was tried in each part of the search, and the mean and best of its
    trials."""
    parts = np.array_split(np.arange(len(done)), PERIODS)
    found: dict[str, tuple[Life, ...]] = {}
    for name in names:
        rows = list[Life]()
        for value in space.choices[name].values:
            tried = [trial.proposal.architecture.get(name) == value for trial in done]
            shares = tuple(float(np.mean([tried[i] for i in part])) if len(part) else 0.0 for part in parts)
            levels = [trial.values[objective] for trial, has in zip(done, tried, strict=True) if has]
            told = (float(np.mean(levels)), min(levels)) if levels else (None, None)
            rows.append(Life(str(value), shares, *told))
        found[name] = tuple(rows)
    return found
