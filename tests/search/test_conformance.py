"""What every strategy must do. A new one joins with one line in STRATEGIES."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from archsmith.search import (
    Option,
    along_front,
    asha,
    bohb,
    hyperband,
    local_search,
    random_search,
    regularised_evolution,
    shrinking,
    strategy,
    with_prior,
    within,
)
from archsmith.search.wrap import losing
from archsmith.space import Architecture, Choice, Condition, Forbidden, Linear, Space
from archsmith.study import Store
from archsmith.trial import Proposal, Strategy, Trial

Make = Callable[[Space, Sequence[str]], Strategy]


def groups(space: Space) -> list[list[Option]]:
    """One group of points for all choices: what a precomputed front looks like on any space."""
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(6)]
    return [[Option(point, score, 6.0 - score) for score, point in enumerate(points)]]


STRATEGIES: dict[str, Make] = {
    "random": lambda space, objectives: random_search(),
    "evolution": lambda space, objectives: regularised_evolution(objectives, population=4, sample=2),
    "evolution with a start": lambda space, objectives: regularised_evolution(
        objectives, start=[space.sample(np.random.default_rng(1))]
    ),
    "front": lambda space, objectives: along_front(groups(space)),
    "shrinking": lambda space, objectives: shrinking(
        random_search(), objectives, every=5, policy=partial(losing, least=2)
    ),
    "shrinking as learned": lambda space, objectives: shrinking(random_search(), objectives, every=5, policy="learned"),
    "local by the best neighbour": lambda space, objectives: local_search(objectives, eager=False),
    "prior": lambda space, objectives: with_prior(random_search(), lambda point: len(point), first=6, drawn=30),
}
NAMED = (
    "grid", "local", "annealing", "genetic", "swarm", "q-learning", "deep-q", "reinforce", "ppo", "bayesian", "bananas",
    "nsga2", "optuna", "portfolio", "pymoo",
)  # fmt: skip
# These try an architecture again at a higher fidelity; what else they do has tests of its own.
FIDELITIES = {"asha": asha, "hyperband": hyperband, "bohb": bohb}
# "bananas" with other learners, which take minutes; another library's, a second a proposal.
SLOW = ("boosting", "transformer", "smac")


def by_name(name: str) -> Make:
    return lambda space, objectives: strategy(name, objectives, budget=20)


def climbing(make: Callable[..., Strategy]) -> Make:
    return lambda space, objectives: make(objectives, levels=(1, 3, 9))


STRATEGIES |= {name: by_name(name) for name in NAMED}
STRATEGIES |= {name: climbing(make) for name, make in FIDELITIES.items()}


def layered(layers: int) -> dict[str, Choice]:
    choices: dict[str, Choice] = {}
    for i in range(layers):
        choices[f"{i}"] = Choice([True, False])
        choices[f"{i}.heads"] = Choice([1, 2, 4, 8, 12], Condition(f"{i}", [True]))
        choices[f"{i}.kind"] = Choice(["relu", "gelu"], Condition(f"{i}", [True]))
    return choices


SPACES = {
    "plain": Space({"a": Choice(range(5)), "b": Choice(["x", "y", "z"]), "c": Choice([True, False])}),
    "conditions": Space(layered(4)),
    "constraints": Space(
        layered(4), [Linear({f"{i}.heads": 1.0 for i in range(4)}, 10), Forbidden({"0": False, "1": False})]
    ),
    "one value each": Space({"a": Choice([3]), "b": Choice(range(40)), "c": Choice(["x"])}),
    "10^30": Space(layered(30), [Linear({f"{i}.heads": 1.0 for i in range(30)}, 60)]),
}
TINY = {
    "one point": Space({"a": Choice([1])}),
    "no choice": Space({}),
    "seven points": Space({"a": Choice([1, 2, 3]), "b": Choice([0, 1, 2, 3, 4], Condition("a", [1]))}),
    "three points of a vast space": Space(
        {f"{i}": Choice([0, 1]) for i in range(100)}, [Linear({f"{i}": 1.0 + (i > 1) for i in range(100)}, 1)]
    ),
}


def measure(architecture: Architecture, objectives: Sequence[str]) -> dict[str, float]:
    """A made-up landscape: any fixed function of the architecture."""
    rng = np.random.default_rng(int(architecture.hash, 16))
    return {name: float(rng.random()) for name in objectives}


def search(
    space: Space, strategy: Strategy, trials: int, objectives: Sequence[str] = ("loss",), batch: int = 1
) -> list[Trial]:
    """A search without a store: every fifth trial fails, every seventh gives NaN."""
    history: list[Trial] = []
    while len(history) < trials:
        number = len(history)
        proposals = strategy(space, tuple(history), batch, np.random.default_rng([1, number]))
        assert len(proposals) <= batch
        if not proposals:
            break
        history += [settle(number + i, proposal, objectives) for i, proposal in enumerate(proposals)]
    return history


def settle(number: int, proposal: Proposal, objectives: Sequence[str]) -> Trial:
    if number % 5 == 4:
        return Trial(number, proposal, "failed", {}, error="it broke")
    values = measure(proposal.architecture, objectives)
    if number % 7 == 6:
        values = dict.fromkeys(objectives, float("nan"))
    return Trial(number, proposal, "complete", values)


def tried(history: Sequence[Trial]) -> list[Architecture]:
    return [trial.proposal.architecture for trial in history]


def asked(history: Sequence[Trial]) -> set[tuple[Architecture, float]]:
    """What ran: an architecture at a fidelity."""
    return {(t.proposal.architecture, max(t.proposal.fidelity.values(), default=0.0)) for t in history}


each_strategy = pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(make, id=name) for name, make in STRATEGIES.items()),
        *(pytest.param(by_name(name), id=name, marks=pytest.mark.slow) for name in SLOW),
    ],
)
each_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
each_tiny = pytest.mark.parametrize("space", TINY.values(), ids=TINY)


@each_strategy
@each_space
def test_every_proposal_is_valid_and_new(make: Make, space: Space) -> None:
    history = search(space, make(space, ["loss"]), 30)
    assert len(history) == 30
    for architecture in tried(history):
        space.check(architecture)
    assert len(asked(history)) == 30


@each_strategy
@each_space
def test_a_batch_has_no_duplicates(make: Make, space: Space) -> None:
    history = search(space, make(space, ["loss"]), 28, batch=7)
    assert len(history) == 28 == len(asked(history))


@each_strategy
@each_space
def test_a_seed_gives_the_same_search_again(make: Make, space: Space) -> None:
    first, again = (search(space, make(space, ["loss"]), 25) for _ in range(2))
    assert [trial.proposal for trial in first] == [trial.proposal for trial in again]


@each_strategy
def test_only_what_is_allowed_is_proposed(make: Make) -> None:
    space = SPACES["conditions"]

    def allowed(architecture: Architecture) -> bool:
        return int(architecture.hash, 16) % 3 == 0

    first, again = (search(space, within(make(space, ["loss"]), allowed), 9) for _ in range(2))
    assert len(asked(first)) == 9 and all(map(allowed, tried(first)))
    assert [trial.proposal for trial in first] == [trial.proposal for trial in again]


def test_where_nothing_is_allowed_some_are_tried_all_the_same() -> None:
    history = search(SPACES["plain"], within(random_search(), lambda architecture: False, attempts=3), 2)
    assert len(history) == 2
    none = within(strategy("grid", ["loss"]), lambda architecture: False)
    assert len(search(TINY["one point"], none, 2)) == 1


@each_strategy
def test_another_seed_gives_another_search(make: Make) -> None:
    space = SPACES["10^30"]
    history = search(space, make(space, ["loss"]), 20)
    # An optimiser of another library goes on with the seed that its notes carry, as a study does.
    begun = any(isinstance(trial.proposal.note, dict) and "seed" in trial.proposal.note for trial in history)
    known = [] if begun else history
    one, two = (make(space, ["loss"])(space, known, 3, np.random.default_rng(seed)) for seed in (1, 2))
    assert one != two


@each_strategy
@pytest.mark.parametrize("objectives", [["a"], ["a", "b"], ["a", "b", "c"]], ids=len)
def test_any_number_of_objectives(make: Make, objectives: list[str]) -> None:
    space = SPACES["constraints"]
    assert len(search(space, make(space, objectives), 25, objectives)) == 25


@each_strategy
@each_tiny
def test_a_tiny_space_is_tried_to_its_last_point_and_no_further(make: Make, space: Space) -> None:
    points = set(space.points())
    history = search(space, make(space, ["loss"]), 50)
    assert set(tried(history)) == points and len(history) == len(asked(history))
    batched = search(space, make(space, ["loss"]), 50, batch=5)
    assert set(tried(batched)) == points and len(batched) == len(asked(batched))


@each_strategy
def test_running_trials_are_not_proposed_again(make: Make) -> None:
    space = TINY["seven points"]
    running = [Trial(i, Proposal(point), "running") for i, point in enumerate(space.points())]
    for missing in running:
        others = [trial for trial in running if trial is not missing]
        proposals = make(space, ["loss"])(space, others, 3, np.random.default_rng(0))
        assert [proposal.architecture for proposal in proposals] == [missing.proposal.architecture]


@each_strategy
def test_only_failures_so_far_are_survived(make: Make) -> None:
    space = SPACES["plain"]
    failed = [Trial(i, Proposal(p), "failed", error="no") for i, p in zip(range(12), space.points(), strict=False)]
    nan = [
        Trial(12 + i, Proposal(p), "complete", {"loss": float("nan")})
        for i, p in enumerate(list(space.points())[12:20])
    ]
    proposals = make(space, ["loss"])(space, failed + nan, 10, np.random.default_rng(0))
    assert len(proposals) == 10 and not {p.architecture for p in proposals} & set(tried(failed + nan))


@each_strategy
def test_a_strategy_holds_nothing_and_changes_nothing(make: Make) -> None:
    space = SPACES["conditions"]
    strategy = make(space, ["loss"])
    history = search(space, strategy, 15)
    before = copy.deepcopy([trial.proposal for trial in history])
    fresh = make(space, ["loss"])(space, history, 2, np.random.default_rng(9))
    strategy(space, history[:4], 2, np.random.default_rng(3))
    assert strategy(space, history, 2, np.random.default_rng(9)) == fresh
    assert [trial.proposal for trial in history] == before


@each_strategy
def test_one_strategy_on_two_spaces_is_as_good_as_two(make: Make) -> None:
    # The same names and points, in another order: what was kept for one must not serve the other.
    space = SPACES["plain"]
    turned = Space({**space.choices, "a": Choice([3, 0, 4, 1, 2])})
    strategy = make(space, ["loss"])
    search(space, strategy, 12)
    history = search(turned, make(turned, ["loss"]), 12)
    known = [(turned, history), (space, search(space, make(space, ["loss"]), 12)), (turned, history)]
    for where, rows in known:
        fresh = make(space, ["loss"])(where, rows, 2, np.random.default_rng(9))
        assert strategy(where, rows, 2, np.random.default_rng(9)) == fresh


@each_strategy
def test_values_that_were_changed_are_what_counts(make: Make) -> None:
    space = SPACES["plain"]
    strategy = make(space, ["loss"])

    def valued(is_good: Callable[[Architecture], bool]) -> list[Trial]:
        """-1.0 and -2.0 have the same hash in Python."""
        return [
            replace(trial, values={"loss": -2.0 if is_good(trial.proposal.architecture) else -1.0})
            if trial.status == "complete"
            else trial
            for trial in history
        ]

    history = search(space, make(space, ["loss"]), 20)
    rules: list[Callable[[Architecture], bool]] = [
        lambda point: point["c"] is True,
        lambda point: point["c"] is False,
        lambda point: measure(point, ["loss"])["loss"] < 0.5,  # noise to a model
    ]
    for rows in (*map(valued, rules), history):
        fresh = make(space, ["loss"])(space, rows, 2, np.random.default_rng(9))
        assert strategy(space, rows, 2, np.random.default_rng(9)) == fresh


@each_strategy
def test_parents_are_trials_of_the_history(make: Make) -> None:
    space = SPACES["conditions"]
    for trial in search(space, make(space, ["loss"]), 25):
        assert all(0 <= parent < trial.number for parent in trial.proposal.parents)


@each_strategy
def test_a_history_read_from_the_store_gives_the_same_proposals(make: Make, tmp_path: Path) -> None:
    space = SPACES["constraints"]
    strategy = make(space, ["loss"])
    history = search(space, strategy, 20)
    store = Store.open(tmp_path / "s.journal", space, ["loss"], seed=1)
    for trial in history:
        number = store.begin(trial.proposal)
        store.finish(number, trial.values, 0.0, trial.error)
    store.close()
    read = Store.read(tmp_path / "s.journal").history()
    assert [trial.proposal for trial in read] == [trial.proposal for trial in history]
    for known in (0, 7, 13, 20):
        rngs = [np.random.default_rng([1, known]) for _ in range(2)]
        assert strategy(space, read[:known], 2, rngs[0]) == strategy(space, history[:known], 2, rngs[1])
