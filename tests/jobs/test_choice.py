"""Which trial is trained for long, which comes after it, and what a bound on quality is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from archsmith.jobs.plan import Plan
from archsmith.jobs.stages import costs_allowed
from archsmith.jobs.training import Chosen, best_trial, better, bound_of, next_trial, shrink_of
from archsmith.report.plain import to_plain
from archsmith.report.result import Variant
from archsmith.space import Architecture
from archsmith.trial import Proposal, Trial


def trial(number: int, ms: float, drop: float) -> Trial:
    values = {"latency_ms": ms, "drop_points": drop, "loss_points": 10 + drop}
    return Trial(number, Proposal(Architecture({"width": number})), "complete", values)


FRONT = [trial(0, 2.0, 8.0), trial(1, 4.0, 4.0), trial(2, 8.0, 1.5), trial(3, 16.0, 0.5)]


def case(**limits: float) -> Any:
    return SimpleNamespace(targets=tuple(limits), limit=limits.get)


TEACHER: Any = SimpleNamespace(judged=object(), task=SimpleNamespace(quality=lambda judged: 90.0))

BOUNDS: list[tuple[dict[str, float], float | None]] = [
    ({}, 1.0),
    ({"drop": 2.0}, 2.0),
    ({"quality": 88.0}, 2.0),
    ({"drop": 5.0, "quality": 89.0}, 1.0),  # the tighter of the two
    ({"drop": 0.5, "quality": 89.0}, 0.5),
    ({"latency": 5.0, "drop": 2.0}, None),
    ({"size": 1e6}, None),
]


@pytest.mark.parametrize(("limits", "bound"), BOUNDS)
def test_what_may_be_lost(limits: dict[str, float], bound: float | None) -> None:
    assert bound_of(case(**limits), TEACHER) == bound


CHOSEN: list[tuple[dict[str, float], float | None, float, int]] = [
    ({"drop": 1.0}, 1.0, 1.0, 3),
    ({"drop": 1.0}, 1.0, 0.5, 2),  # half of what is lost will remain
    ({"drop": 0.1}, 0.1, 1.0, 3),  # none keeps it: the best
    ({"latency": 5.0}, None, 1.0, 1),
    ({"latency": 1.0}, None, 1.0, 0),  # none is within it: the fastest
    ({"size": 1e6}, None, 1.0, 3),
]


@pytest.mark.parametrize(("limits", "bound", "shrink", "number"), CHOSEN)
def test_the_trial_to_go_on_with(limits: dict[str, float], bound: float | None, shrink: float, number: int) -> None:
    assert best_trial(case(**limits), FRONT, bound, shrink).number == number


NEXT: list[tuple[int, float, float, int | None]] = [
    (1, 2.0, 1.0, 2),  # missed: the next better one
    (3, 2.0, 1.0, None),  # missed, and there is none
    (2, 0.5, 1.0, None),  # kept, but the next faster would lose 4 x 0.5 / 1.5
    (2, 0.3, 1.0, 1),
    (2, 0.0, 1.0, 0),  # nothing lost: the fastest of all
]


@pytest.mark.parametrize(("tried", "drop", "bound", "number"), NEXT)
def test_what_the_rest_is_spent_on(tried: int, drop: float, bound: float, number: int | None) -> None:
    found = next_trial(FRONT, FRONT[tried], drop, bound)
    assert (found.number if found else None) == number


def test_of_two_the_faster_that_keeps_the_bound() -> None:
    def chosen(drop: float, ms: float) -> Chosen:
        return Chosen(Architecture({}), nn.Identity(), drop, ms)

    fast, slow = chosen(2.0, 1.0), chosen(0.5, 3.0)
    assert better(fast, slow, 2.0) is fast and better(fast, slow, 1.0) is slow and better(fast, slow, 0.1) is slow


def test_long_training_leaves_a_share_of_what_a_trial_loses() -> None:
    assert shrink_of(Plan(0, 0, 0, 0.0, 0.0, 0)) == 1.0
    assert shrink_of(Plan(1, 0, 2, 20.0, 10.0, 8)) == 1.0  # no longer than the trial
    assert 0.3 < shrink_of(Plan(1, 0, 2, 20.0, 500.0, 8)) < 0.7


def test_a_trial_beyond_the_bounds_on_costs_is_not_chosen() -> None:
    """A network of half the weights: its smallest file and its peak follow from those of the original."""

    def variant(runtime: str, precision: str, size: int, peak: int | None) -> Variant:
        return Variant(precision, 90.0, 1.0, runtime, precision, 20, 200, size, peak_bytes=peak)

    originals = [variant("pytorch", "fp32", 800, None), variant("onnxruntime", "fp32", 820, 2000)]
    originals.append(variant("onnxruntime", "int8", 240, 1500))

    def bounded(runtime: str, **limits: float) -> Any:
        case = SimpleNamespace(limit=lambda metric: limits.get(metric), request=SimpleNamespace(runtime=runtime))
        return SimpleNamespace(case=case, record=lambda name: {"variants": to_plain(originals)})

    costs = {"parameters": 10.0, "macs": 100.0, "weight_bytes": 400.0}
    assert costs_allowed(bounded("all"), costs)
    assert costs_allowed(bounded("all", parameters=10, macs=100, size=124, memory=1380), costs)
    assert not costs_allowed(bounded("all", parameters=9), costs)
    assert not costs_allowed(bounded("all", macs=99), costs)
    assert not costs_allowed(bounded("all", size=123), costs)
    assert not costs_allowed(bounded("all", memory=1379), costs)
    assert not costs_allowed(bounded("pytorch", size=411), costs)
    assert costs_allowed(bounded("pytorch", size=412), costs)
