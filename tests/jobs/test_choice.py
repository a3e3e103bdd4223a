"""Which trial is trained for long, which comes after it, and what a bound on quality is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from archsmith.jobs.choice import (
    AGAIN,
    GAIN,
    GAINS,
    PROBE,
    SLOPE,
    SLOPES,
    Chosen,
    best_trial,
    better,
    beyond,
    bound_of,
    gain_of,
    next_point,
    shrink_of,
    slope_of,
)
from archsmith.jobs.plan import Plan
from archsmith.jobs.select import Point
from archsmith.jobs.stages import costs_allowed
from archsmith.jobs.target import parse_targets
from archsmith.jobs.training import PROBED, closing_on
from archsmith.report.plain import to_plain
from archsmith.report.result import Variant
from archsmith.space import Architecture, Choice, Space
from archsmith.trial import Proposal, Trial


def trial(number: int, ms: float, drop: float) -> Trial:
    values = {"latency_ms": ms, "drop_points": drop, "loss_points": 10 + drop}
    return Trial(number, Proposal(Architecture({"width": number})), "complete", values)


FRONT = [trial(0, 2.0, 8.0), trial(1, 4.0, 4.0), trial(2, 8.0, 1.5), trial(3, 16.0, 0.5)]


def case(**limits: float) -> Any:
    return SimpleNamespace(targets=tuple(limits), limit=limits.get)


TEACHER: Any = SimpleNamespace(judged=object(), task=SimpleNamespace(quality=lambda judged: 90.0))

BOUNDS: list[tuple[list[str], float | None]] = [
    ([], 1.0),
    (["drop<=2"], 2.0),
    (["quality>=88"], 2.0),
    (["drop<=5", "quality>=89"], 1.0),  # the tighter of the two
    (["drop<=0.5", "quality>=89"], 0.5),
    (["perplexity<=1.2x"], 15.0),  # quality is 100 / perplexity: 90 / 1.2 is left
    (["perplexity<=1.25"], 10.0),
    (["latency<=5ms", "drop<=2"], None),
    (["size<=1MB"], None),
]


@pytest.mark.parametrize(("targets", "bound"), BOUNDS)
def test_what_may_be_lost(targets: list[str], bound: float | None) -> None:
    found = bound_of(SimpleNamespace(targets=parse_targets(targets)), TEACHER)  # type: ignore[arg-type]
    assert found == (None if bound is None else pytest.approx(bound))


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


POINTS = [Point(Architecture({"width": n}), 0.0, ms) for n, ms in enumerate((1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0))]

NEXT: list[tuple[float, float, float, float | None]] = [
    # ms tried, drop, bound, ms of the next; along FRONT what is lost goes about as ms ** -1.3
    (4.0, 2.0, 1.0, 8.0),  # missed: what should lose three quarters of the bound
    (4.0, 1.1, 1.0, 6.0),  # missed by little: slower all the same
    (4.0, 40.0, 1.0, 12.0),  # missed by far: the slowest that is still clearly faster than the original
    (16.0, 2.0, 1.0, None),  # there is nothing between it and the original
    (8.0, 0.5, 1.0, 6.0),  # kept with room: faster
    (8.0, 0.97, 1.0, None),  # kept with none
    (8.0, 0.92, 1.0, None),  # kept with less than a step is worth
    (8.0, float("inf"), 1.0, 12.0),
    (8.0, 0.0, 1.0, 4.0),  # nothing lost: no longer step than is dared
    (1.0, 0.1, 1.0, None),  # nothing is faster
    (4.0, 0.5, 0.0, 12.0),  # a bound that allows nothing
]


def chosen(drop: float, ms: float, served: float | None = None) -> Chosen:
    return Chosen(Architecture({}), nn.Identity(), drop, drop if served is None else served, ms)


@pytest.mark.parametrize(("ms", "drop", "bound", "wanted"), NEXT)
def test_what_the_rest_is_spent_on(ms: float, drop: float, bound: float, wanted: float | None) -> None:
    found = next_point(POINTS, FRONT, ms, drop, bound, whole_ms=16.0)
    assert (found.ms if found else None) == wanted


BEYOND = [
    # whole 90; trials keep 82, 86, 88.5, 89.5 at 2, 4, 8, 16 ms. Drop after training at 8 ms, bound, where it may lead
    (-3.0, 1.0, 2.0, 8.0),
    (-3.0, 0.5, 2.0, 8.0),
    (-3.0, 8.0, 2.0, 2.0),  # a bound that the smallest keeps
    (-1e-9, 0.0, 8.0, 16.0),  # nothing may be lost
]


@pytest.mark.parametrize(("drop", "bound", "low", "high"), BEYOND)
def test_what_training_gave_beyond_the_original_is_counted_on(
    drop: float, bound: float, low: float, high: float
) -> None:
    found = beyond(FRONT, 8.0, drop, bound)
    assert low <= found <= high
    kept = np.interp(np.log(found), np.log([2.0, 4.0, 8.0, 16.0]), np.log([82.0, 86.0, 88.5, 89.5]))
    expected = np.exp(kept) * ((90.0 - drop) / 88.5) ** AGAIN
    assert expected >= 90.0 - bound - 1e-6 and (low == high or expected == pytest.approx(90.0 - bound))


def test_how_losses_fall_is_fitted_where_there_are_trials_to_fit() -> None:
    assert slope_of(FRONT) == pytest.approx(-1.32, abs=0.05)
    assert slope_of(FRONT[:1]) == slope_of([]) == SLOPE
    assert slope_of([trial(0, 2.0, 1.0), trial(1, 4.0, 3.0)]) == max(SLOPES)  # noise: losses do not rise


def test_of_two_the_faster_that_keeps_the_bound() -> None:
    fast, slow = chosen(2.0, 1.0), chosen(0.5, 3.0)
    found = [better(fast, slow, bound, 1.5) for bound in (2.0, 1.0, 0.1)]
    assert [each is fast for each in found] == [True, False, False]


def test_of_two_one_that_keeps_the_bound_in_fp32_only_counts_as_slower() -> None:
    fast, slow = chosen(0.9, 2.0, served=1.1), chosen(0.7, 2.5, served=0.8)
    assert better(fast, slow, 1.0, 1.5) is slow and better(fast, slow, 1.0, 1.1) is fast
    assert better(fast, slow, 0.75, 1.5) is slow and better(fast, slow, 0.1, 1.5) is slow


def test_long_training_leaves_a_share_of_what_a_trial_loses() -> None:
    assert shrink_of(Plan(0, 0, 0, 0.0, 0.0, 0), GAIN) == 1.0
    assert shrink_of(Plan(1, 0, 2, 20.0, 10.0, 8), GAIN) == 1.0  # no longer than the trial
    assert 0.6 < shrink_of(Plan(1, 0, 2, 20.0, 500.0, 8), GAIN) < 0.8
    assert 0.2 < shrink_of(Plan(1, 0, 2, 20.0, 500.0, 8), 0.4) < 0.4


def probed(short: float, whole: float) -> list[Trial]:
    """The same point, at a quarter of a trial's seconds and at all of them."""
    values = {"latency_ms": 4.0, "drop_points": short, "loss_points": 10 + short}
    first = trial(1, 4.0, whole)
    return [Trial(0, Proposal(first.proposal.architecture, PROBE), "complete", values), first, trial(2, 8.0, 0.1)]


LEARNT = [
    # points lost at a quarter and at all of a trial's seconds, validation rows, the least and most that the gain may be
    (16.0, 8.0, 10**9, 0.5, 0.5),  # sure: halved by four times as long
    (16.0, 8.0, 1000, 0.3, 0.5),
    (16.0, 8.0, 100, 0.14, 0.3),  # unsure: nearer to what was known before
    (0.0, 0.0, 1000, 0.1, 0.13),  # nothing lost, nothing learnt
    (8.0, 9.0, 10**9, *GAINS[:1] * 2),  # longer is never taken to be worse
    (90.0, 9.0, 10**9, *GAINS[1:] * 2),
]


@pytest.mark.parametrize(("short", "whole", "rows", "least", "most"), LEARNT)
def test_what_long_training_gains_is_learnt(short: float, whole: float, rows: int, least: float, most: float) -> None:
    assert least - 1e-6 <= gain_of(probed(short, whole), rows) <= most + 1e-6


def test_without_a_pair_of_trials_the_gain_is_the_usual_one() -> None:
    assert gain_of(FRONT, 1000) == gain_of([], 1000) == gain_of(probed(16.0, 8.0)[:1], 1000) == GAIN


def test_the_first_point_is_probed_where_there_are_trials_enough() -> None:
    space = Space({"width": Choice([1, 2, 3, 4, 5, 6])})
    front = [(float(n), Architecture({"width": n})) for n in range(1, 7)]

    def run(trials: int, drops: dict[float, float], steps: int) -> list[tuple[int, bool]]:
        """(width, is it the probe) of each proposal; `drops`: what width 1 loses, by the share of seconds."""
        propose = closing_on(front, 1.0, Plan(1, 0, trials, 20.0, 2000.0, 8), 10**9)
        history: list[Trial] = []
        for number in range(steps):
            (found,) = propose(space, history, 1, np.random.default_rng(number))
            width = int(found.architecture["width"])
            lost = drops[found.fidelity.get("seconds", 1.0)] / width
            history.append(Trial(number, found, "complete", {"drop_points": lost, "latency_ms": width}))
        return [(int(t.proposal.architecture["width"]), bool(t.proposal.fidelity)) for t in history]

    assert run(PROBED, {0.25: 30.0, 1.0: 15.0}, 3) == [(2, True), (2, False), (1, False)]  # much is won back: faster
    assert run(PROBED, {0.25: 15.5, 1.0: 15.0}, 3) == [(2, True), (2, False), (3, False)]  # little is: slower
    assert run(PROBED - 1, {1.0: 15.0}, 2) == [(2, False), (3, False)]


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
