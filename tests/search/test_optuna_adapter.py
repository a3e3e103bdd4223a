"""Strategies as samplers of Optuna: what its studies run is what the strategy proposes."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from archsmith.errors import BadInput
from archsmith.search import as_sampler, nsga2, regularised_evolution, strategy
from archsmith.space import Architecture, Choice, Condition, Space
from archsmith.trial import Strategy, Trial

SPACE = Space(
    {
        "attention": Choice([True, False]),
        "heads": Choice([1, 2, 4, 8], Condition("attention", [True])),
        "kind": Choice(["relu", "gelu", "silu"]),
        "width": Choice([32, 64, 96, 128]),
    }
)


def built(trial: Any) -> dict[str, Any]:
    """What an objective suggests, as users of Optuna write it."""
    found = {"attention": trial.suggest_categorical("attention", [True, False])}
    if found["attention"]:
        found["heads"] = trial.suggest_categorical("heads", [1, 2, 4, 8])
    found["kind"] = trial.suggest_categorical("kind", ["relu", "gelu", "silu"])
    found["width"] = trial.suggest_int("width", 32, 128, step=32)
    return found


def loss(trial: Any) -> float:
    found = built(trial)
    return abs(found["width"] - 96) / 32 + abs(found.get("heads", 0) - 4) + (found["kind"] != "gelu")


@pytest.mark.parametrize("name", ["evolution", "local", "bayesian", "grid"])
def test_a_study_runs_what_the_strategy_proposes(name: str) -> None:
    seen: list[list[Trial]] = []
    plain = strategy(name, ["loss"], budget=30)

    def watched(space: Space, history: Any, n: int, rng: np.random.Generator) -> Any:
        seen.append(list(history))
        return plain(space, history, n, rng)

    study = optuna.create_study(sampler=as_sampler(watched, SPACE, seed=3))
    study.optimize(loss, n_trials=30)
    points = [Architecture(trial.params) for trial in study.trials]
    assert len(set(points)) == 30 and all(point in SPACE for point in points)
    assert [trial.proposal.architecture for trial in seen[-1]] == points[:29]
    assert [trial.values["loss"] for trial in seen[-1]] == [trial.value for trial in study.trials[:29]]
    again = optuna.create_study(sampler=as_sampler(strategy(name, ["loss"], budget=30), SPACE, seed=3))
    again.optimize(loss, n_trials=30)
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]


def test_it_finds_more_than_chance() -> None:
    made: list[tuple[Strategy, list[float]]] = [
        (strategy("local", ["loss"]), []),
        (strategy("random", ["loss"]), []),
    ]
    for each, best in made:
        for seed in range(5):
            study = optuna.create_study(sampler=as_sampler(each, SPACE, seed=seed))
            study.optimize(loss, n_trials=15)
            best.append(study.best_value)
    assert np.mean(made[0][1]) < np.mean(made[1][1])


def test_what_is_maximised_is_told_with_its_sign_turned_and_failures_are_survived() -> None:
    told: list[dict[str, float]] = []
    inner = nsga2(["good", "ms"], budget=30)

    def watched(space: Space, history: Any, n: int, rng: np.random.Generator) -> Any:
        told.extend(dict(trial.values) for trial in history[-1:])
        return inner(space, history, n, rng)

    def objective(trial: Any) -> tuple[float, float]:
        if trial.number % 5 == 4:
            raise ArithmeticError
        return (float("nan"), 1.0) if trial.number % 7 == 6 else (-loss(trial), float(trial.params["width"]))

    sampler = as_sampler(watched, SPACE, ["good", "ms"], seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=30, catch=ArithmeticError)
    assert told[0] == {"good": -study.trials[0].values[0], "ms": study.trials[0].values[1]} and told[0]["good"] >= 0
    assert told[4] == told[6] == {}
    proposed = [trial.user_attrs["proposal"]["architecture"] for trial in study.trials]
    assert len({str(sorted(each.items())) for each in proposed}) == 30


def test_what_the_user_enqueues_is_history_and_a_space_that_is_used_up_goes_on() -> None:
    study = optuna.create_study(sampler=as_sampler(regularised_evolution(["loss"]), SPACE, seed=0))
    study.enqueue_trial({"attention": True, "kind": "gelu", "width": 96})
    study.optimize(loss, n_trials=SPACE.size + 3)
    first = study.trials[0].params
    assert (first["attention"], first["kind"], first["width"]) == (True, "gelu", 96) and first["heads"] in (1, 2, 4, 8)
    assert len({Architecture(trial.params) for trial in study.trials}) == SPACE.size


def test_threads_do_not_try_the_same() -> None:
    study = optuna.create_study(sampler=as_sampler(regularised_evolution(["loss"]), SPACE, seed=0))
    study.optimize(loss, n_trials=40, n_jobs=4)
    assert len({Architecture(trial.params) for trial in study.trials}) == 40


@pytest.mark.parametrize(
    ("suggest", "law"),
    [
        (lambda trial: trial.suggest_int("depth", 1, 9), "is a choice of the space"),
        (lambda trial: trial.suggest_int("width", 1, 20), "the values that its choice has"),
        (lambda trial: trial.suggest_int("heads", 1, 8), "a choice that is active"),
    ],
)
def test_what_is_not_of_the_space_is_said(suggest: Any, law: str) -> None:
    study = optuna.create_study(sampler=as_sampler(strategy("random", ["loss"]), SPACE, seed=0))
    with pytest.raises(BadInput, match=law):
        study.optimize(suggest, n_trials=20)


def test_objectives_that_the_strategy_does_not_read_are_said() -> None:
    study = optuna.create_study(sampler=as_sampler(regularised_evolution(["accuracy"]), SPACE))
    with pytest.raises(BadInput, match="loss, not accuracy"):
        study.optimize(loss, n_trials=5)
    several = optuna.create_study(directions=["minimize"] * 2, sampler=as_sampler(strategy("random", ["loss"]), SPACE))
    with pytest.raises(BadInput, match="a direction for each objective"):
        several.optimize(lambda trial: (1.0, 2.0), n_trials=1)
