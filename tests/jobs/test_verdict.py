"""What a budget says of what was measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archsmith.jobs.target import Target, parse_targets
from archsmith.jobs.verdict import fastest_meeting, free_win, meets_all, met, outcomes, uncut, unmet, value_of
from archsmith.report.result import Variant


def variant(name: str = "v", **values: Any) -> Variant:
    whole: dict[str, Any] = {"quality": 90.0, "latency_ms": 10.0, "runtime": "openvino", "precision": "fp32"}
    whole |= {"parameters": 1000, "macs": 5000, "bytes": 4000, "peak_bytes": 9000}
    return Variant(name, **{**whole, **values})


WHOLE = variant("pytorch fp32", runtime="pytorch")


def case(*targets: str, metric: str = "accuracy") -> Any:
    asked, task = SimpleNamespace(runtime="all"), SimpleNamespace(metric=metric)
    return SimpleNamespace(targets=parse_targets(targets), request=asked, task=task)


MET: list[tuple[str, dict[str, Any], bool]] = [
    ("latency<=5ms", {"latency_ms": 5.0}, True),
    ("latency<=5ms", {"latency_ms": 5.149}, True),  # two measurements of one file differ by 3 %
    ("latency<=5ms", {"latency_ms": 5.151}, False),
    ("latency<=5000us", {"latency_ms": 5.149}, True),
    ("latency<=5ms", {"latency_ms": None}, False),
    ("drop<=1", {"quality": 89.0}, True),
    ("drop<=1", {"quality": 88.99}, False),  # counts are exact: nothing is forgiven
    ("drop<=1", {"quality": None}, False),
    ("drop<=-1", {"quality": 91.0}, True),
    ("quality>=90", {"quality": 90.0}, True),
    ("quality>=90", {"quality": 89.9}, False),
    ("perplexity<=1.25", {"quality": 80.0}, True),  # 100 / 80
    ("perplexity<=1.24", {"quality": 80.0}, False),
    ("perplexity<=1.2x", {"quality": 75.0}, True),  # 90 / 75
    ("perplexity<=1.2x", {"quality": 74.9}, False),
    ("perplexity<=1.2x", {"quality": 0.0}, False),
    ("size<=4KB", {"bytes": 4000}, True),
    ("size<=4KB", {"bytes": 4001}, False),
    ("memory<=9KB", {"peak_bytes": 9001}, False),
    ("memory<=9KB", {"peak_bytes": None}, False),
    ("parameters<=1K", {"parameters": 1000}, True),
    ("macs<=5K", {"macs": 5001}, False),
    ("macs<=5K", {"macs": None}, False),
]


@pytest.mark.parametrize(("target", "values", "keeps"), MET)
def test_a_target_is_met_by_what_was_measured(target: str, values: dict[str, Any], keeps: bool) -> None:
    found = variant(**values)
    assert met(Target.parse(target), value_of(Target.parse(target), found, WHOLE)) is keeps
    assert meets_all(case(target), found, WHOLE) is keeps


FAST = variant("fast", latency_ms=4.0)
INT8 = variant("int8", latency_ms=2.0, quality=88.5, bytes=1000, precision="int8")
MEASURED = [WHOLE, FAST, INT8]

FREE: list[tuple[tuple[str, ...], Variant | None]] = [
    ((), None),  # without a bound on a cost, smaller is always wanted
    (("drop<=5",), None),
    (("latency<=5ms",), FAST),  # of those that keep all the best
    (("latency<=5ms", "drop<=1"), FAST),
    (("latency<=2ms", "drop<=2"), INT8),
    (("latency<=2ms", "drop<=1"), None),
    (("latency<=1ms",), None),
    (("size<=1KB",), INT8),
    (("parameters<=1K", "latency<=20ms"), FAST),  # of equals the faster
    (("parameters<=999",), None),
]


@pytest.mark.parametrize(("targets", "wanted"), FREE)
def test_a_runtime_alone_may_be_enough(targets: tuple[str, ...], wanted: Variant | None) -> None:
    assert free_win(case(*targets), MEASURED) == wanted


SHIPPED: list[tuple[tuple[str, ...], str]] = [
    ((), "fast"),
    (("drop<=2",), "int8"),
    (("drop<=1",), "fast"),
    (("latency<=5ms",), "fast"),
    (("latency<=1ms", "drop<=1"), "fast"),  # none keeps both: of those that keep most the least off
    (("drop<=1", "latency<=5ms", "size<=3KB"), "fast"),
    (("latency<=1ms",), "int8"),  # nearer to the bound
    (("size<=1KB", "drop<=-1"), "int8"),
]


@pytest.mark.parametrize(("targets", "wanted"), SHIPPED)
def test_the_fastest_that_keeps_most_ships(targets: tuple[str, ...], wanted: str) -> None:
    assert fastest_meeting(case(*targets), MEASURED, WHOLE).name == wanted


def test_a_file_that_loses_much_does_not_ship_for_its_speed() -> None:
    """Both keep the latency and neither the drop."""
    slow = variant("fp32", quality=88.8, latency_ms=3.9)
    ruined = variant("int8", quality=70.0, latency_ms=2.5, precision="int8")
    assert fastest_meeting(case("drop<=1", "latency<=4ms"), [slow, ruined], WHOLE) == slow


@pytest.mark.parametrize(("quality", "wanted"), [(81.1, "fp32"), (81.3, "int8")])
def test_of_precisions_that_are_as_good_the_fastest_ships(quality: float, wanted: str) -> None:
    quick = variant("fp32", quality=81.0, latency_ms=0.67)
    slow = variant("int8", quality=quality, latency_ms=3.8, precision="int8")
    assert fastest_meeting(case("macs<=65M"), [quick, slow], WHOLE).name == wanted


@pytest.mark.parametrize(("perplexity", "wanted"), [(200.3, "int8"), (330.0, "fp32")])
def test_of_a_language_model_as_good_is_a_share_of_its_perplexity(perplexity: float, wanted: str) -> None:
    slow = variant("fp32", quality=100 / 200, latency_ms=3.8)
    quick = variant("int8", quality=100 / perplexity, latency_ms=0.67, precision="int8")
    assert fastest_meeting(case("size<=1MB", metric="perplexity"), [quick, slow], WHOLE).name == wanted


def test_two_that_miss_a_latency_by_the_same_are_told_apart_by_their_quality() -> None:
    good = variant("bf16", quality=90.0, latency_ms=2.05)
    ruined = variant("int8", quality=55.0, latency_ms=2.0, precision="int8")
    assert fastest_meeting(case("latency<=1ms"), [ruined, good], WHOLE) == good


def line(*targets: str, floors: dict[str, float] | None = None, **values: Any) -> str:
    found = outcomes(case(*targets), variant(**values), WHOLE, floors or {})
    result: Any = SimpleNamespace(targets=found, folder=Path("here"))
    return unmet(result)


def test_nothing_is_said_where_all_is_met() -> None:
    assert line("latency<=10ms", "drop<=0") == ""


LINES: list[tuple[str, dict[str, Any], dict[str, float], str]] = [
    ("latency<=5ms", {}, {"latency": 7.0}, "latency<=5ms: 10 was reached, the floor is 7"),
    ("latency<=5000us", {}, {"latency": 7.0}, "latency<=5000us: 1e+04 was reached, the floor is 7e+03"),
    ("size<=1KB", {}, {}, "size<=1KB: 4 was reached."),
    ("memory<=1KB", {"peak_bytes": None}, {}, "memory<=1KB: not measured."),
    ("drop<=1", {"quality": 87.5}, {}, "drop<=1: 2.5 was reached."),
]


@pytest.mark.parametrize(("target", "values", "floors", "wanted"), LINES)
def test_an_unmet_line_names_the_value_and_the_floor(
    target: str, values: dict[str, Any], floors: dict[str, float], wanted: str
) -> None:
    said = line(target, "parameters<=1K", floors=floors, **values)
    assert wanted in said and "parameters" not in said
    assert "\n" not in said and "here" in said


def test_what_ships_is_on_the_runtime_that_was_asked_for() -> None:
    """PyTorch is measured beside it: it is neither a free win nor what ships, however fast."""
    quick = variant("pytorch bf16", runtime="pytorch", latency_ms=1.0)
    slow = variant("onnx fp32", runtime="onnxruntime", latency_ms=4.5)
    asked = case("latency<=5ms")
    asked.request.runtime = "onnxruntime"
    assert free_win(asked, [WHOLE, quick, slow]) == slow
    assert fastest_meeting(asked, [WHOLE, quick, slow], WHOLE) == slow
    assert free_win(case("latency<=5ms"), [WHOLE, quick, slow]) == quick


@pytest.mark.parametrize(
    ("targets", "drop", "bound", "ships"),
    [
        (("drop<=2",), 3.0, 2.0, INT8),  # the cut lost too much: int8 of the original is within the bound
        (("drop<=1",), 3.0, 1.0, FAST),
        (("drop<=1",), 1.0, 1.0, None),  # the small network keeps it
        (("drop<=1", "latency<=3ms"), 3.0, 1.0, None),  # neither does the original keep all
        (("latency<=3ms",), 3.0, None, None),  # quality is not bounded
        ((), 3.0, 1.0, None),  # nothing was asked for: the small network ships
    ],
)
def test_the_original_ships_where_only_it_keeps_the_bound(
    targets: tuple[str, ...], drop: float, bound: float | None, ships: Variant | None
) -> None:
    assert uncut(case(*targets), MEASURED, drop, bound) == ships
