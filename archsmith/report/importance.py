"""What a search has learnt of its space: which choices matter, and which of their values live and die."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from archsmith.report.story import Life
from archsmith.space import Space
from archsmith.trial import Trial

ENOUGH, MOST = 12, 300  # trials, below which nothing is said of which choices matter, and that are looked at
FEW = 6  # trials, below which nothing is said of values either
PERIODS = 3  # of the search, in which values live or die
EACH = 3  # trials a choice, below which importances are a hint
SURE = 10  # trials in a period, below which a value may be gone by chance
ABSENT = "not there"


def varied(done: Sequence[Trial], space: Space) -> list[str]:
    """The choices of which several values were tried."""
    points = [trial.proposal.architecture for trial in done]
    return [name for name in space.choices if len({point[name] for point in points if name in point}) > 1]


def importances(done: Sequence[Trial], space: Space, objective: str) -> dict[str, float]:
    """Choice -> its share of what makes the objective vary (fANOVA, Hutter et al. 2014, as Optuna has it), most first.
    That a choice is not active counts as a value of it. Empty where there are too few trials to tell."""
    rows = [trial for trial in done if math.isfinite(trial.values.get(objective, math.nan))]
    rows = rows[:: max(1, -(-len(rows) // MOST))]  # the time that it takes grows with them
    names = varied(rows, space)
    if len(rows) < ENOUGH or not names or len({trial.values[objective] for trial in rows}) < 2:
        return {}
    if len(names) == 1:
        return {names[0]: 1.0}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        # By rank: of a set of values all subsets would be gone through.
        places = {name: {value: rank for rank, value in enumerate(space.choices[name].values)} for name in names}
        distributions = {name: IntDistribution(-1, len(places[name]) - 1) for name in names}
        for trial in rows:
            point = trial.proposal.architecture
            picked = {name: places[name][point[name]] if name in point else -1 for name in names}
            study.add_trial(create_trial(params=picked, distributions=distributions, value=trial.values[objective]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(before)
    return dict(found)


def lives(done: Sequence[Trial], space: Space, names: Sequence[str], objective: str) -> dict[str, tuple[Life, ...]]:
    """Of each value of these choices: its share of the trials in which the choice was active, in each part of the
    search, and the mean and best of its trials; and the share of all trials in which the choice was not active.
    Empty where there are too few trials."""
    if len(done) < FEW:
        return {}
    parts = np.array_split(np.arange(len(done)), PERIODS)
    levels = np.array([trial.values[objective] for trial in done])
    found: dict[str, tuple[Life, ...]] = {}
    for name in names:
        points = [trial.proposal.architecture for trial in done]
        active = np.array([name in point for point in points])
        rows = [
            _life(str(value), np.array([point.get(name) == value for point in points]), active, parts, levels)
            for value in space.choices[name].values
        ]
        if not active.all():
            rows.append(_life(ABSENT, ~active, np.ones_like(active), parts, levels))
        found[name] = tuple(rows)
    return found


def _life(value: str, tried: np.ndarray, among: np.ndarray, parts: Sequence[np.ndarray], levels: np.ndarray) -> Life:
    shares = tuple(float(tried[part].sum() / among[part].sum()) if among[part].any() else None for part in parts)
    own = levels[tried]
    return Life(value, shares, float(own.mean()), float(own.min())) if len(own) else Life(value, shares)


def doubts(trials: int, choices: int) -> tuple[str, str]:
    """How little so few trials say of which choices matter, and of which values live.

    >>> doubts(8, 5)[0], doubts(1000, 5)
    ('8 trials are too few to tell which choices matter; 12 begin to.', ('', ''))
    """
    matter = f"{trials} trials are too few to tell which choices matter; {ENOUGH} begin to."
    if trials >= ENOUGH:
        hint = f"{trials} trials say little of {choices} choices: take it for a hint."
        matter = hint if trials < EACH * choices else ""
    third = trials // PERIODS
    chance = f"A third has but {third} trials, so a value may be gone, or look good, by chance."
    return matter, chance if third < SURE else ""
