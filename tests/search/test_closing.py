"""Closing in: the cheapest point of a front that keeps a bound is found in as many trials as bisection takes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from archsmith.search import closing_in
from archsmith.space import Architecture, Choice, Space
from archsmith.trial import Trial

SPACE = Space({"width": Choice(tuple(range(1, 101)))})
FRONT = [(float(width), Architecture({"width": width})) for width in range(1, 101)]


def close_in(needed: int, trials: int, first: float = 0.4, failing: frozenset[int] = frozenset()) -> list[int]:
    """Widths tried where every width below `needed` misses the limit of 1."""
    strategy, history = closing_in(FRONT, "loss", 1.0, first), []
    for number in range(trials):
        (proposal,) = strategy(SPACE, history, 1, np.random.default_rng([0, number]))
        width = int(proposal.architecture["width"])  # type: ignore[call-overload]
        if number in failing:
            history.append(Trial(number, proposal, "failed", error="broken"))
        else:
            history.append(Trial(number, proposal, "complete", {"loss": 2.0 if width < needed else 0.5}))
    return [int(trial.proposal.architecture["width"]) for trial in history]  # type: ignore[call-overload]


@pytest.mark.parametrize("needed", [1, 2, 7, 39, 40, 41, 77, 100])
def test_the_cheapest_that_keeps_the_limit_is_found_by_bisection(needed: int) -> None:
    tried = close_in(needed, 2 + math.ceil(math.log2(100)) + 2)
    assert tried[0] == 40 and needed in tried
    assert len(set(tried)) == len(tried)


def test_where_none_keeps_it_the_dearest_is_tried() -> None:
    assert close_in(1000, 4) == [40, 62, 95, 100]


def test_a_failed_trial_is_passed_over() -> None:
    tried = close_in(60, 12, failing=frozenset({0, 2}))
    assert 60 in tried and len(set(tried)) == len(tried)


def test_several_at_once_are_different() -> None:
    found = closing_in(FRONT, "loss", 1.0, 0.4)(SPACE, [], 4, np.random.default_rng(0))
    assert len({proposal.architecture for proposal in found}) == 4


def test_what_the_space_does_not_allow_is_left_out() -> None:
    small = Space({"width": Choice((3, 5))})
    found = closing_in(FRONT, "loss", 1.0, 0.4)(small, [], 2, np.random.default_rng(0))
    assert {proposal.architecture["width"] for proposal in found} == {3, 5}
