"""What each method must do beyond the laws of all."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.errors import BadInput
from archsmith.registry import find, names
from archsmith.search import Option, along_front, exact_front, random_search, regularised_evolution
from archsmith.search.order import fronts, places
from archsmith.space import Architecture, Choice, Space
from archsmith.trial import Proposal, Strategy, Trial, pareto

SPACE = Space({f"{i}": Choice(range(8)) for i in range(12)})
TARGET = np.random.default_rng(1_000).integers(8, size=12)


def losses(architecture: Architecture) -> dict[str, float]:
    """Distance to a hidden point, and a second objective that pulls the other way."""
    values = np.array([architecture[f"{i}"] for i in range(12)], dtype=float)
    return {"loss": float(np.abs(values - TARGET).sum()), "cost": float(values.sum())}


def search(strategy: Strategy, trials: int, seed: int) -> list[Trial]:
    history: list[Trial] = []
    for number in range(trials):
        (proposal,) = strategy(SPACE, history, 1, np.random.default_rng([seed, number]))
        history.append(Trial(number, proposal, "complete", losses(proposal.architecture)))
    return history


def hypervolume(history: list[Trial]) -> float:
    """Area dominated below the corner (84, 84)."""
    front = [(t.values["loss"], t.values["cost"]) for t in pareto(history, ["loss", "cost"])]
    edges = [*[x for x, _ in front[1:]], 84.0]
    return sum((right - x) * (84.0 - y) for (x, y), right in zip(front, edges, strict=True))


def test_evolution_beats_random_search() -> None:
    best = {
        name: np.array([min(t.values["loss"] for t in search(make(), 150, seed)) for seed in range(5)])
        for name, make in {"evolution": lambda: regularised_evolution(["loss"]), "random": random_search}.items()
    }
    assert (best["evolution"] < best["random"] - 4).all()


def test_evolution_of_two_objectives_beats_random_search() -> None:
    both = ["loss", "cost"]
    gain = [
        hypervolume(search(regularised_evolution(both, population=20), 150, seed))
        / hypervolume(search(random_search(), 150, seed))
        for seed in range(3)
    ]
    assert min(gain) > 1.0 and np.mean(gain) > 1.1


def test_the_parent_is_the_best_of_the_living_and_the_old_die() -> None:
    rng = np.random.default_rng(0)
    history = [Trial(i, Proposal(SPACE.sample(rng)), "complete", {"loss": float(i)}) for i in range(10)]
    strategy = regularised_evolution(["loss"], population=4, sample=200)
    (proposal,) = strategy(SPACE, history, 1, rng)
    assert proposal.parents == (6,)  # 0 to 5 are better but have died
    parent = history[6].proposal.architecture
    assert sum(parent[name] != proposal.architecture[name] for name in parent) == 1


def test_evolution_begins_with_its_start_in_order() -> None:
    start = [SPACE.sample(np.random.default_rng(i)) for i in range(3)]
    outside = Architecture({"nowhere": 1})
    strategy = regularised_evolution(["loss"], start=[start[0], outside, *start])
    assert [t.proposal.architecture for t in search(strategy, 4, 0)][:3] == start


def test_a_front_is_walked_from_its_ends_inward() -> None:
    groups = [[Option({f"{i}": v}, float((7 - v) ** 2), float(v)) for v in range(8)] for i in range(12)]
    history = search(along_front(groups), 9, 0)
    costs = [trial.values["cost"] for trial in history]
    assert costs[:3] == [0.0, 84.0, 42.0]
    scores = {pick.cost: pick.score for pick in exact_front(groups)}
    assert all(cost in scores for cost in costs)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 3).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 4)] * n), min_size=1, max_size=30)))
def test_fronts_are_peeled_one_by_one(points: list[tuple[int, ...]]) -> None:
    array = np.array(points, dtype=float)
    rank, left = fronts(array), list(range(len(points)))
    level = 0
    while left:
        worse = lambda i: any((array[j] <= array[i]).all() and (array[j] < array[i]).any() for j in left)  # noqa: B023, E731
        front = [i for i in left if not worse(i)]
        assert all(rank[i] == level for i in front)
        left = [i for i in left if i not in front]
        level += 1
    place = places(array)
    assert sorted(place) == list(range(len(points)))
    assert (np.diff(rank[np.argsort(place)]) >= 0).all()


def test_one_objective_is_ordered_by_value() -> None:
    values = np.random.default_rng(0).random((20, 1))
    assert np.argsort(places(values)).tolist() == np.argsort(values[:, 0]).tolist()


def test_the_registry_finds_strategies_by_name() -> None:
    assert {"random", "evolution", "front"} <= set(names("strategy"))
    proposals = find("strategy", "random")(["loss"])(SPACE, [], 1, np.random.default_rng(0))
    assert proposals == random_search()(SPACE, [], 1, np.random.default_rng(0))
    with pytest.raises(BadInput, match=r"'astrology'. There are: annealing, asha"):
        find("strategy", "astrology")


def test_every_name_is_where_it_is_said_to_be_and_brings_nothing_before_it_is_asked_for() -> None:
    asked = (
        "import sys; import archsmith.search as s; assert not {'torch', 'sklearn', 'scipy'} & set(sys.modules); "
        "assert set(s.__all__) == {*s.MODULES, 'STRATEGIES', 'strategy'}; "
        "assert all(callable(getattr(s, name)) for name in s.MODULES); assert callable(s.nsga2)"
    )
    subprocess.run([sys.executable, "-c", asked], check=True)


def test_evolution_without_an_objective_is_refused() -> None:
    with pytest.raises(BadInput, match="needs an objective"):
        regularised_evolution([])
