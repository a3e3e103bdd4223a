"""What each of the learning strategies must do on a made-up landscape: find more than chance does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from archsmith.errors import BadInput
from archsmith.search import STRATEGIES, local_search, nsga2, random_search, regularised_evolution, strategy, within
from archsmith.search.annealing import Walk
from archsmith.search.bayesian import first_best
from archsmith.search.gaussian import Watched, conditioned, fit_process, likely, scores
from archsmith.search.genetic import exceeded, roulette, tournament
from archsmith.search.grid import grid, listed
from archsmith.search.learners import boosted_trees, mlp_ensemble
from archsmith.search.meta import learnt_prior
from archsmith.search.order import standing
from archsmith.search.picking import pick
from archsmith.search.transformer import transformer_ensemble
from archsmith.search.wrap import Policy, losing, outdone, passed_over, shrinking, with_prior
from archsmith.space import Architecture, Choice, Condition, Space
from archsmith.trial import Proposal, Strategy, Trial

SPACE = Space({f"{i}": Choice(list("abcd")) for i in range(8)})
GOAL = np.random.default_rng(7).permutation(8) % 4


def loss(point: Architecture) -> float:
    """How many choices are wrong, and a little for neighbours that are."""
    wrong = [point[f"{i}"] != "abcd"[GOAL[i]] for i in range(8)]
    return float(sum(wrong) + 0.5 * sum(a and b for a, b in itertools.pairwise(wrong)))


def search(made: Strategy, trials: int, seed: int, space: Space = SPACE) -> list[Trial]:
    history: list[Trial] = []
    for number in range(trials):
        (proposal,) = made(space, history, 1, np.random.default_rng([seed, number]))
        values = {"loss": loss(proposal.architecture), "cost": float(list(proposal.architecture.values()).count("a"))}
        history.append(Trial(number, proposal, "complete", values))
    return history


def best(made: Strategy, trials: int, seed: int) -> float:
    return min(trial.values["loss"] for trial in search(made, trials, seed))


LEARNING = ["local", "annealing", "genetic", "evolution", "swarm", "reinforce", "ppo", "nsga2"]
MODELS = ["deep-q", "bayesian", "bananas"]
SLOW = ["boosting", "transformer"]


@pytest.mark.parametrize("name", LEARNING)
def test_it_finds_more_than_chance(name: str) -> None:
    chance = np.array([best(random_search(), 150, seed) for seed in range(6)])
    found = np.array([best(strategy(name, ["loss"], budget=150), 150, seed) for seed in range(6)])
    assert found.mean() < chance.mean() - 0.5


def test_a_table_of_decisions_finds_more_than_chance() -> None:
    chance = np.mean([best(random_search(), 150, seed) for seed in range(20)])
    assert np.mean([best(strategy("q-learning", ["loss"], budget=150), 150, seed) for seed in range(20)]) < chance - 0.4


@pytest.mark.parametrize("name", [*MODELS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_model_finds_more_than_chance(name: str) -> None:
    chance = np.mean([best(random_search(), 60, seed) for seed in range(3)])
    assert np.mean([best(strategy(name, ["loss"], budget=60), 60, seed) for seed in range(3)]) < chance - 0.5


def test_a_name_or_an_option_that_there_is_not_is_said() -> None:
    with pytest.raises(BadInput, match="There are: random, grid"):
        strategy("genetics", ["loss"])
    with pytest.raises(BadInput, match=r"option of genetic.*There are: population"):
        strategy("genetic", ["loss"], populations=3)
    with pytest.raises(BadInput, match="levels"):
        strategy("asha", ["loss"])
    with pytest.raises(BadInput, match="closing needs front"):
        strategy("closing", ["loss"])
    with pytest.raises(BadInput, match="It has none"):
        strategy("random", ["loss"], foo=1)
    for name, options in (("reinforce", {"method": "ppo"}), ("bananas", {"model": "boosting"})):
        with pytest.raises(BadInput, match=rf"option of {name} is one that it has; found '{next(iter(options))}'"):
            strategy(name, ["loss"], **options)
    with pytest.raises(BadInput, match="selection"):
        strategy("genetic", ["loss"], selection="best")
    assert set(STRATEGIES) > {*LEARNING, *MODELS, *SLOW}


@pytest.mark.parametrize(
    ("name", "start"),
    [("local", -1), ("local", 0), ("bayesian", -1), ("bananas", -2), ("evolution", [1]), ("evolution", [{"0": "a"}])],
)
def test_a_start_that_is_none_is_refused(name: str, start: object) -> None:
    with pytest.raises(BadInput, match="starts with"):
        strategy(name, ["loss"], start=start)


def test_limits_come_before_objectives() -> None:
    made = nsga2(["loss"], budget=120, limits={"cost": 1.0})
    history = search(made, 120, 0)
    late = [trial.values["cost"] for trial in history[60:]]
    free = [trial.values["cost"] for trial in search(nsga2(["loss"], budget=120), 120, 0)[60:]]
    assert np.mean(np.array(late) <= 1) > 0.7 and np.mean(late) < np.mean(free)
    assert exceeded(history[:1], {"cost": history[0].values["cost"] - 2.0, "absent": 1.0})[0] == np.inf


def test_a_grid_is_all_combinations_of_what_the_budget_allows() -> None:
    space = Space({"a": Choice([1, 2, 3]), "b": Choice([True, False]), "c": Choice([0, 5], Condition("b", [True]))})
    assert len(set(grid(space, 100))) == space.size
    assert {point["a"] for point in grid(space, 2)} <= {1, 3}


def test_selection_prefers_the_first() -> None:
    rng, place = np.random.default_rng(0), np.arange(10)
    for select in (tournament, roulette):
        drawn = np.array([select(place, rng) for _ in range(2000)])
        assert drawn.mean() < 3.5 and drawn.max() >= 8


def test_annealing_goes_uphill_while_it_is_hot() -> None:
    points = [Proposal(SPACE.sample(np.random.default_rng(i)), note={"chance": 0.3}) for i in range(60)]
    lost = np.array([1.0, 3.0, 2.0, *([1.4, 2.6] * 28), 2.0])[:60]
    trials = [Trial(i, p, "complete", {"loss": v}) for i, (p, v) in enumerate(zip(points, lost, strict=True))]
    hot, cold = Walk(3, 1000), Walk(3, 60)
    for trial, value in zip(trials, lost.tolist(), strict=True):
        cold.step(trial, value)
        if trial.number < 5:
            hot.step(trial, value)
    assert hot.at is not None and hot.at.number in (3, 4)
    assert cold.value < 2.0  # what is worse is no longer moved to


def test_a_process_interpolates_and_is_sure_of_what_it_saw() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([SPACE.encode(SPACE.sample(rng)) for _ in range(80)])
    z = x @ rng.standard_normal(x.shape[1])
    process = fit_process(x[:60], z[:60])
    mean, deviation = process.predict(x)
    assert np.corrcoef(mean[60:], z[60:])[0, 1] > 0.9
    assert deviation[:60].mean() < 0.9 * deviation[60:].mean()
    believing = process.believing(x[60:])
    assert believing.predict(x[60:])[1].mean() < 0.9 * deviation[60:].mean()
    np.testing.assert_allclose(scores(np.array([3.0, 1.0, 2.0])), [0.967, -0.967, 0.0], atol=1e-3)


@pytest.mark.parametrize(
    "learner", [mlp_ensemble, boosted_trees, transformer_ensemble(SPACE)], ids=["mlp", "trees", "tf"]
)
def test_a_predictor_learns_an_order(learner: object) -> None:
    rng = np.random.default_rng(0)
    points = [SPACE.sample(rng) for _ in range(200)]
    x, z = np.stack([SPACE.encode(p) for p in points]), scores(np.array([loss(p) for p in points]))
    x = np.column_stack([x, rng.standard_normal((200, 2))])  # beside features that tell nothing
    predict = learner(x[:120], z[:120], 0)  # type: ignore[operator]
    mean, deviation = predict(x[120:])
    assert np.corrcoef(mean, z[120:])[0, 1] > 0.6 and (deviation > 0).all()
    again = learner(x[:120], z[:120], 0)(x[120:])[0]  # type: ignore[operator]
    np.testing.assert_array_equal(mean, again)


def test_a_prior_of_earlier_studies_begins_better() -> None:
    past = search(random_search(), 120, 5)
    prior = learnt_prior(SPACE, [(past, ["loss"])])
    chance = np.mean([best(random_search(), 10, seed) for seed in range(5)])
    warm = np.mean([best(with_prior(random_search(), prior, first=10), 10, seed) for seed in range(5)])
    assert warm < chance - 1
    with pytest.raises(BadInput, match="past studies"):
        learnt_prior(SPACE, [([], ["loss"])])


def test_points_that_were_refused_are_not_asked_for_again() -> None:
    calls: list[Architecture] = []

    def allowed(point: Architecture) -> bool:
        calls.append(point)
        return points.index(point) >= 120

    points = list(grid(SPACE, 256))
    assert len(points) == 256
    history = search(within(strategy("grid", ["loss"], budget=256), allowed), 20, 0)
    late = [points.index(trial.proposal.architecture) >= 120 for trial in history]
    assert late == [False] + [True] * 19 and len(calls) == len(set(calls)) == 138  # a hundred in a row are enough
    begun = within(regularised_evolution(["loss"], start=points[:130]), lambda point: points.index(point) >= 120)
    assert [points.index(trial.proposal.architecture) for trial in search(begun, 9, 0)[1:]] == list(range(120, 128))


def test_a_prior_decides_as_many_trials_whatever_is_refused() -> None:
    prior = dict.fromkeys(SPACE.choices, "a")
    wrong = lambda point: -sum(point[name] == value for name, value in prior.items())  # noqa: E731
    made = within(with_prior(random_search(), wrong, first=10), lambda point: point["0"] != "a")
    trials = search(made, 10, 0)
    assert np.mean([wrong(trial.proposal.architecture) for trial in trials[::2]]) < -3  # by chance two of eight


@pytest.mark.parametrize("policy", [partial(losing, least=3), "learned"])
def test_values_that_keep_losing_are_dropped_and_noted(policy: str | Policy) -> None:
    history = search(shrinking(random_search(), ["loss"], every=20, policy=policy), 100, 0)
    notes = [trial.proposal.note["dropped"] for trial in history if trial.proposal.note]
    assert notes and all(loss for loss in notes)
    for trial in history:
        for name, gone in (trial.proposal.note or {}).get("dropped", {}).items():
            assert trial.proposal.architecture[name] not in gone
    if policy == "learned":  # the best value of each choice is known, and it is never what goes
        assert not any("abcd"[GOAL[int(name)]] in gone for note in notes for name, gone in note.items())
        assert len(notes[-1]) >= 4
    with pytest.raises(BadInput, match="rule, learned"):
        shrinking(random_search(), ["loss"], policy="magic")


def test_listed_points_are_tried_in_their_order_and_no_others() -> None:
    points = [SPACE.sample(np.random.default_rng(seed)) for seed in range(4)]
    for made, tried in (
        (listed(points), points),
        (within(listed(points), lambda point: point != points[1]), [points[0], *points[2:]]),
    ):
        history = search(made, len(tried), 0)
        assert [trial.proposal.architecture for trial in history] == tried
        assert made(SPACE, history, 1, np.random.default_rng(0)) == []


@pytest.mark.parametrize("name", ["grid", pytest.param("pymoo")])
def test_what_is_passed_over_has_failed_to_the_strategy_inside(name: str) -> None:
    """One that asks for a point until it is tried goes on behind one that was passed over."""
    if name == "pymoo":
        pytest.importorskip("pymoo")
    inner = strategy(name, ["loss"], budget=256)
    told: list[list[Trial]] = []
    asked: list[Architecture] = []

    def watched(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        told.append(list(history))
        proposals = inner(space, history, n, rng)
        asked.extend(each.architecture for each in proposals)
        return proposals

    made = shrinking(watched, ["loss"], every=15, policy="learned")
    history = search(made, 90, 0)
    passed = [each.architecture for trial in history if (each := passed_over(trial)) is not None]
    assert len(passed) >= 3 and len(set(asked)) == len(asked)
    failed = [trial.proposal.architecture for trial in told[-1] if trial.status == "failed"]
    assert failed == passed[: len(failed)] and len(failed) >= len(passed) - 1
    again = shrinking(strategy(name, ["loss"], budget=256), ["loss"], every=15, policy="learned")
    for known in (60, 90):
        one, other = (each(SPACE, history[:known], 2, np.random.default_rng(1)) for each in (made, again))
        assert one == other


def test_shrinking_tries_in_the_end_what_it_passed_over() -> None:
    space = Space({"a": Choice(list("abcd")), "b": Choice(list("abcd"))})
    made, history = (
        shrinking(strategy("grid", ["loss"], budget=16), ["loss"], every=4, policy=partial(losing, least=1)),
        [],
    )
    while proposals := made(space, history, 3, np.random.default_rng(len(history))):
        for proposal in proposals:
            lost = float(sum("abcd".index(str(value)) for value in proposal.architecture.values()))
            history.append(Trial(len(history), proposal, "complete", {"loss": -lost}))
    assert any(passed_over(trial) for trial in history)
    assert len(history) == 16 == len({trial.proposal.architecture for trial in history})


def test_shrinking_has_a_name() -> None:
    made = strategy("shrinking", ["loss"], budget=96, of="random", policy="learned")
    history = search(made, 96, 0)
    noted = [trial.number for trial in history if trial.proposal.note]
    assert noted and min(noted) >= 12
    for options, law in (
        ({"of": "magic"}, "a strategy is one"),
        ({"policy": "magic"}, "rule, learned"),
        ({"every": 0}, "1 trial"),
    ):
        with pytest.raises(BadInput, match=law):
            strategy("shrinking", ["loss"], **options)


def test_a_value_is_dropped_that_was_never_in_the_better_half() -> None:
    history = search(random_search(), 80, 0)
    lost = standing(history, ["loss"])
    dropped = losing(SPACE, history, lost)
    for name, values in dropped.items():
        for value in values:
            rows = [x for t, x in zip(history, lost, strict=True) if t.proposal.architecture[name] == value]
            assert min(rows) > np.median(lost)
    worst = next(name for name in SPACE.choices)
    marked = np.array([10.0 if t.proposal.architecture[worst] == "a" else 1.0 + t.number / 100 for t in history])
    assert losing(SPACE, history, marked) == {worst: ("a",)} and outdone(SPACE, history, marked)[worst] == ("a",)


def test_watched_points_are_told_as_without_a_memory() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((300, 6))
    order = rng.permutation(300)
    z = scores(points @ np.arange(6.0) + 0.1 * rng.normal(size=300))
    watched, hypers = Watched(points), [likely(points[:40], z[:40]), likely(points[:90], z[:90])]
    for count, hyper in ((5, 0), (6, 0), (40, 0), (20, 0), (21, 0), (21, 1), (90, 1)):
        x = points[order[:count]]
        process = conditioned(x, z[order[:count]], 0.1, hypers[hyper])
        for mine, plain in zip(watched.predict(process), process.predict(points), strict=True):
            np.testing.assert_allclose(mine, plain, rtol=1e-9, atol=1e-12)
        believed = process.believing(points[order[count : count + 2]])
        np.testing.assert_allclose(watched.predict(believed)[0], process.predict(points)[0], atol=1e-9)
        assert (watched.predict(believed)[1] <= process.predict(points)[1] + 1e-9).all()


def test_points_that_are_the_same_are_taken_in_their_order() -> None:
    assert first_best(np.array([0.1, 0.3, 0.3 + 1e-12, 0.2])) == 1
    assert first_best(np.array([-np.inf, -2.0, -1.0])) == 2


def test_local_search_goes_to_the_best_neighbour_where_it_is_not_eager() -> None:
    history = search(local_search(["loss"], eager=False), 30, 0)
    first = history[0].proposal.architecture
    around = set(SPACE.neighbours(first))
    assert {trial.proposal.architecture for trial in history[1:25]} == around
    parents = {trial.proposal.parents for trial in history[25:]}
    least = min(trial.values["loss"] for trial in history[1:25])
    assert len(parents) == 1 and history[parents.pop()[0]].values["loss"] == least
    eager = search(local_search(["loss"]), 30, 0)
    assert {trial.proposal.parents for trial in eager[1:]} > {(0,)}


def test_the_portfolio_picks_by_what_is_known_of_the_task() -> None:
    small = Space({"a": Choice(range(5)), "b": Choice(range(4))})
    assert pick(small, ["loss"], 20) == "grid" and pick(small, ["loss"], 19) == "bayesian"
    assert pick(SPACE, ["loss", "ms"], 100) == "bayesian"
    with pytest.raises(BadInput, match=r"option of portfolio.*There are: features, prior"):
        strategy("portfolio", ["loss"], levels=[1.0, 9.0])  # cheap values decide nothing
    assert pick(SPACE, ["loss"], 5000) == "evolution" and pick(SPACE, ["loss", "ms"], 5000) == "nsga2"
    history = search(strategy("portfolio", ["loss"], budget=100), 3, 0)
    assert {trial.proposal.note["strategy"] for trial in history} == {"bayesian"}
    assert best(strategy("portfolio", ["loss"], budget=60), 60, 0) < best(random_search(), 60, 0)


@pytest.mark.parametrize("name", ["pymoo", pytest.param("smac", marks=pytest.mark.slow)])
def test_what_another_library_asks_for_goes_on_where_it_stopped(name: str) -> None:
    pytest.importorskip(name)
    made, again = strategy(name, ["loss"], budget=40), strategy(name, ["loss"], budget=40)
    history = search(made, 24, 0)
    (proposal,) = made(SPACE, history, 1, np.random.default_rng(9))
    assert again(SPACE, history, 1, np.random.default_rng(9)) == [proposal]
    assert len({trial.proposal.architecture for trial in history}) == 24
    assert {trial.proposal.note["seed"] for trial in history} == {history[0].proposal.note["seed"]}
