"""Exact selection agrees with brute force and with an integer program, and is quick."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import archsmith.search.exact as exact
from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.search import Option, Pick, exact_front, exact_pick, in_spread

NUMBER = st.integers(-5, 12).map(float)
GROUPS = st.lists(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=5), min_size=1, max_size=5)


def options(groups: list[list[tuple[float, float]]]) -> list[list[Option]]:
    return [[Option({f"{g}": i}, *pair) for i, pair in enumerate(group)] for g, group in enumerate(groups)]


def brute_force(groups: list[list[Option]]) -> list[tuple[float, float]]:
    """(cost, score) of what nothing beats."""
    sums = {(sum(o.cost for o in pick), sum(o.score for o in pick)) for pick in itertools.product(*groups)}
    return sorted(p for p in sums if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in sums))


def random_groups(count: int, size: int, seed: int = 0) -> list[list[Option]]:
    """Every option of a group is on the group's own front: the hardest case."""
    rng = np.random.default_rng(seed)
    costs, scores = np.sort(rng.random((count, size))), -np.sort(-rng.random((count, size)))
    return [[Option({f"{g}": i}, float(scores[g, i]), float(costs[g, i])) for i in range(size)] for g in range(count)]


def test_front_and_pick_agree_with_brute_force() -> None:
    @settings(max_examples=150, deadline=None)
    @given(GROUPS)
    def law(plain: list[list[tuple[float, float]]]) -> None:
        groups = options(plain)
        front = exact_front(groups)
        assert [(pick.cost, pick.score) for pick in front] == brute_force(groups)
        for pick in front:
            chosen = [group[i] for group, i in zip(groups, pick.options, strict=True)]
            assert pick.values == {k: v for option in chosen for k, v in option.values.items()}
            assert (pick.score, pick.cost) == (sum(o.score for o in chosen), sum(o.cost for o in chosen))

    law()


def test_an_integer_program_finds_the_same_scores() -> None:
    groups = random_groups(6, 8)
    front = exact_front(groups)
    for pick in front[:: len(front) // 5]:
        assert exact_pick(groups, pick.cost).score == pytest.approx(pick.score, abs=1e-9)


@pytest.mark.parametrize("resolution", [0.2, 0.02, 1e-3])
def test_rounded_costs_keep_the_promised_bound(resolution: float, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = random_groups(5, 12)
    true = exact_front(groups)
    monkeypatch.setattr(exact, "LONGEST_FRONT", 0)
    rounded = exact_front(groups, resolution)
    extent = sum(max(o.cost for o in group) - min(o.cost for o in group) for group in groups)
    assert len(rounded) <= 1 / resolution + 2
    for point in true:
        slack = 2 * resolution * extent + 1e-9
        assert any(p.score <= point.score + 1e-9 and p.cost <= point.cost + slack for p in rounded)
    for point in rounded:  # and nothing is invented
        assert any(p.score <= point.score + 1e-9 and p.cost <= point.cost + 1e-9 for p in true)


@pytest.mark.parametrize(("count", "size"), [(6, 200), (12, 144), (48, 24), (48, 200)])
def test_the_whole_front_takes_under_two_seconds(count: int, size: int) -> None:
    groups = random_groups(count, size)
    began = time.process_time()
    front = exact_front(groups)
    assert time.process_time() - began < 2.0
    assert len(front) > 500
    assert all(a.cost < b.cost and a.score > b.score for a, b in itertools.pairwise(front))


def test_equal_costs_or_scores_do_no_harm() -> None:
    same = [[Option({"a": 0}, 1.0, 2.0), Option({"a": 1}, 1.0, 2.0)], [Option({"b": 0}, 0.0, 0.0)]]
    assert [(pick.cost, pick.score, pick.options) for pick in exact_front(same)] == [(2.0, 1.0, (0, 0))]


def test_points_come_in_order_of_spread() -> None:
    picks = [Pick({}, -cost, cost, ()) for cost in np.linspace(0, 1, 101)]
    spread = [pick.cost for pick in in_spread(picks)]
    assert sorted(spread) == [pick.cost for pick in picks]
    assert [round(cost, 3) for cost in spread[:3]] == [0.0, 1.0, 0.5]
    for few in (5, 9, 17):
        assert max(np.diff(sorted(spread[:few]))) <= 2.1 / (few - 1)


BAD = {
    "no group": ([], BadInput, "at least one group"),
    "no option": ([[]], BadInput, "at least one option"),
    "NaN": ([[Option({}, float("nan"), 1.0)]], BadInput, "must be finite"),
    "limit below the floor": ([[Option({}, 0.0, 2.0)], [Option({}, 0.0, 3.0)]], BudgetNotReachable, "possible is 5"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_picked_says_why(name: str) -> None:
    groups, kind, reason = BAD[name]
    with pytest.raises(kind, match=reason):
        exact_pick(groups, 4.0)
