"""The record that everybody shares."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.space import Architecture
from archsmith.trial import Proposal, Trial, pareto

POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=25)


def trial(number: int, point: tuple[float, ...], status: str = "complete") -> Trial:
    values = {f"o{i}": value for i, value in enumerate(point)}
    return Trial(number, Proposal(Architecture({"a": number})), status, values)  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(POINTS, st.integers(1, 3))
def test_the_front_is_what_nothing_dominates(points: list[tuple[float, ...]], objectives: int) -> None:
    trials = [trial(number, point[:objectives]) for number, point in enumerate(points)]
    array = np.array(points).reshape(-1, 3)[:, :objectives]
    undominated = {tuple(p) for p in array if not any((q <= p).all() and (q < p).any() for q in array)}
    front = pareto(trials, [f"o{i}" for i in range(objectives)])
    assert sorted(tuple(t.values.values()) for t in front) == sorted(undominated)
    assert all(t.number == min(u.number for u in trials if u.values == t.values) for t in front)


def test_only_complete_finite_trials_are_on_a_front() -> None:
    trials = [trial(0, (1.0,), "failed"), trial(1, (float("nan"),)), trial(2, (3.0,)), trial(3, (0.0,), "running")]
    assert [t.number for t in pareto(trials, ["o0"])] == [2]


def test_a_proposal_comes_back_from_json() -> None:
    proposal = Proposal(Architecture({"a": 1, "b": "x"}), {"epochs": 3.0}, {"speed": [0.5, 1]}, (4, 7))
    assert Proposal.from_json(json.loads(json.dumps(proposal.to_json()))) == proposal
    assert hash(proposal) == hash(Proposal.from_json(proposal.to_json()))
