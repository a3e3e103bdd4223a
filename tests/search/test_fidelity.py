"""Multi-fidelity strategies: what goes up, from where, and at what cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from archsmith.errors import BadInput
from archsmith.search import asha, bohb, hyperband
from archsmith.search.fidelity import brackets, density, tally
from archsmith.space import Architecture, Choice, Condition, Space
from archsmith.study import Store
from archsmith.trial import Strategy, Trial

SPACE = Space({f"{i}": Choice(range(6)) for i in range(5)})
LEVELS = (1, 3, 9)
MAKE: dict[str, Callable[..., Strategy]] = {"asha": asha, "hyperband": hyperband, "bohb": bohb}
each = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def loss(architecture: Architecture, epochs: float) -> float:
    """The sum of the values, and the less trained the noisier."""
    rng = np.random.default_rng([int(architecture.hash, 16) % 2**32, int(epochs)])
    return float(sum(float(value) for value in architecture.values()) + rng.normal() * 3 / epochs)


def search(strategy: Strategy, trials: int, seed: int = 0, batch: int = 1, space: Space = SPACE) -> list[Trial]:
    history: list[Trial] = []
    while len(history) < trials:
        proposals = strategy(space, tuple(history), batch, np.random.default_rng([seed, len(history)]))
        if not proposals:
            break
        for proposal in proposals:
            number, level = len(history), proposal.fidelity["epochs"]
            if number % 11 == 10:
                history.append(Trial(number, proposal, "failed", error="it broke"))
            else:
                history.append(Trial(number, proposal, "complete", {"loss": loss(proposal.architecture, level)}))
    return history


@each
@pytest.mark.parametrize("batch", [1, 4])
def test_an_architecture_climbs_rung_by_rung_and_is_never_run_twice_at_one(
    make: Callable[..., Strategy], batch: int
) -> None:
    history = search(make(["loss"], levels=LEVELS), 80, batch=batch)
    pairs = [(trial.proposal.architecture, trial.proposal.fidelity["epochs"]) for trial in history]
    assert len(set(pairs)) == len(pairs)
    for trial in history:
        SPACE.check(trial.proposal.architecture)
        for parent in trial.proposal.parents:
            below = history[parent]
            assert below.proposal.architecture == trial.proposal.architecture and below.status == "complete"
            assert (
                LEVELS.index(trial.proposal.fidelity["epochs"]) == LEVELS.index(below.proposal.fidelity["epochs"]) + 1
            )
    count = Counter(level for _, level in pairs)
    assert count[1] > count[3] > count[9] > 0


def test_the_best_third_of_a_rung_goes_up() -> None:
    history = search(asha(["loss"], levels=LEVELS), 60)
    low = [trial for trial in history if trial.proposal.fidelity["epochs"] == 1 and trial.status == "complete"]
    risen = {trial.proposal.architecture for trial in history if trial.proposal.fidelity["epochs"] == 3}
    order = sorted(low, key=lambda trial: trial.values["loss"])
    assert {trial.proposal.architecture for trial in order[: len(low) // 4]} <= risen
    assert not {trial.proposal.architecture for trial in order[2 * len(low) // 3 :]} & risen


def test_hyperband_enters_at_every_level() -> None:
    history = search(hyperband(["loss"], levels=LEVELS), 60)
    entered = Counter(trial.proposal.fidelity["epochs"] for trial in history if not trial.proposal.parents)
    assert entered[1] > entered[3] > entered[9] > 0


def test_brackets_have_the_sizes_of_the_paper() -> None:
    # Li et al. 2018, algorithm 1 with R = 81 and eta = 3: n = ceil((s_max + 1) / (s + 1) * eta ** s).
    assert brackets((1, 3, 9, 27, 81)) == [math.ceil(5 / (s + 1) * 3**s) for s in (4, 3, 2, 1, 0)] == [81, 34, 15, 8, 5]
    assert brackets((1, 2, 4, 8, 16), 2) == [math.ceil(5 / (s + 1) * 2**s) for s in (4, 3, 2, 1, 0)]
    history = search(hyperband(["loss"], levels=LEVELS), 60)
    entered = [trial.proposal.fidelity["epochs"] for trial in history if not trial.proposal.parents]
    assert entered[:17] == [1] * 9 + [3] * 5 + [9] * 3


def test_a_model_draws_better_ones_than_chance() -> None:
    best = {
        name: np.mean([min(loss(t.proposal.architecture, 1e9) for t in search(make(["loss"], levels=LEVELS), 90, seed))
                       for seed in range(6)])
        for name, make in MAKE.items()
    }  # fmt: skip
    assert best["bohb"] < best["hyperband"] - 0.5


@each
def test_a_small_space_is_evaluated_in_full(make: Callable[..., Strategy]) -> None:
    space = Space({"a": Choice(range(4))})
    history = search(make(["loss"], levels=LEVELS), 100, space=space)
    whole = {trial.proposal.architecture["a"] for trial in history if trial.proposal.fidelity["epochs"] == 9}
    failed = {trial.proposal.architecture["a"] for trial in history if trial.status == "failed"}
    assert whole | failed == {0, 1, 2, 3} and len(history) <= 12


def test_density_counts_a_value_once_for_nothing() -> None:
    space = Space({"a": Choice([0, 1, 2]), "b": Choice([0, 1], Condition("a", [1]))})
    points = [Architecture({"a": 0}), Architecture({"a": 0}), Architecture({"a": 1, "b": 1})]
    assert density(space, tally(points), Architecture({"a": 0})) == pytest.approx(np.log(3 / 6))
    assert density(space, tally(points), Architecture({"a": 1, "b": 0})) == pytest.approx(np.log(2 / 6) + np.log(1 / 3))


@each
def test_read_from_the_store_it_goes_on_as_it_would_have(make: Callable[..., Strategy], tmp_path: Path) -> None:
    strategy = make(["loss"], levels=LEVELS)
    history = search(strategy, 30)
    store = Store.open(tmp_path / "s.journal", SPACE, ["loss"], seed=1)
    for trial in history:
        store.finish(store.begin(trial.proposal), trial.values, 0.0, trial.error)
    store.close()
    read = Store.read(tmp_path / "s.journal").history()
    for known in (0, 9, 30):
        one, other = (strategy(SPACE, rows[:known], 2, np.random.default_rng(known)) for rows in (read, history))
        assert [(p.architecture, dict(p.fidelity)) for p in one] == [(p.architecture, dict(p.fidelity)) for p in other]


@pytest.mark.parametrize("levels", [(), (3, 1), (0, 1), (1, 1)])
def test_levels_that_are_none_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(BadInput, match="levels"):
        asha(["loss"], levels=levels)
