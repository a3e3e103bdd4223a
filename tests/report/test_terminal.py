"""Laws of what is printed: the numbers of the result, nothing lost on a narrow terminal, silence when asked."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from archsmith.report.result import Outcome, Result
from archsmith.report.show import outcome
from archsmith.report.terminal import Progress, inspect_view, measure_view, plan_table, result_view


def printed(thing: object, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(thing)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def test_the_ladder_names_every_rung_with_its_numbers(result: Result) -> None:
    text = printed(result_view(result))
    for rung in result.ladder:
        assert rung.name in text and rung.runtime in text
    for number in ("14.6×", "4.1×", "89.4", "1.90 ms (1.88–1.92)", "27.3 MB", "−0.40 points of accuracy"):
        assert number in text


def test_an_unmeasured_result_prints_dashes(bare: Result) -> None:
    assert "–" in printed(result_view(bare))


@pytest.mark.parametrize("width", [80, 60])
def test_a_narrow_terminal_loses_no_rung(result: Result, width: int) -> None:
    text = printed(result_view(result), width)
    assert all(rung.name.split()[0] in text for rung in result.ladder)
    assert max(map(len, text.splitlines())) <= width


OUTCOMES = [
    (Outcome("drop<=1.0", 0.6, True), "drop<=1.0: met, 0.6"),
    (Outcome("drop<=1.0", -8e-7, True), "drop<=1.0: met, 0"),
    (Outcome("latency<=5ms", 6.0, False), "latency<=5ms: not met, 6 (1 off)"),
    (Outcome("size<=20MB", 25.0, False, floor=22.0), "size<=20MB: not met, 25 (5 off); the floor is 22"),
    (Outcome("quality>=90", 88.0, False), "quality>=90: not met, 88 (2 off)"),
    (Outcome("drop<=-0.5points", 0.5, False), "drop<=-0.5points: not met, 0.5 (1 off)"),
    (Outcome("macs<=3e8", 4e8, False), "macs<=3e8: not met, 4e+08 (1e+08 off)"),
    (Outcome("memory<=1GB", None, False), "memory<=1GB: not measured"),
]


@pytest.mark.parametrize(("line", "words"), OUTCOMES)
def test_a_target_is_met_or_says_by_how_much_not(line: Outcome, words: str) -> None:
    assert outcome(line) == words


def test_inspect_shows_what_can_change_and_why_the_rest_cannot() -> None:
    found = {
        "axes": [{"name": "layer.0.ffn", "kind": "ffn", "size": 1536, "layer": "layer.0"}],
        "branches": [{"name": "layer.0", "kind": "layer", "module": "layer.0", "axes": ["layer.0.ffn"]}],
        "certificates": [
            {"subject": "layer.0.ffn", "accepted": True, "reason": "holds", "error": 3e-7},
            {"subject": "pooler", "accepted": False, "reason": "the control changed nothing", "error": 0.0},
        ],
        "frozen": {"embeddings.weight[0]": "indexed by the input"},
        "unknown_operators": {"aten.fft": 2},
    }
    text = printed(inspect_view(found))
    for shown in ("1536", "3.0e-07", "skip layer", "the control changed nothing", "indexed by the input", "aten.fft"):
        assert shown in text


def test_measure_shows_costs_and_latency() -> None:
    latency = [{"runtime": "openvino", "precision": "int8", "median_ms": 4.5, "low_ms": 4.4, "high_ms": 4.6}]
    latency.append({"runtime": "openvino", "precision": "bf16", "median_ms": None, "note": "the CPU has no bf16 units"})
    text = printed(measure_view({"costs": {"parameters": 22_713_000, "file_bytes": 90_900_000}, "latency": latency}))
    for shown in ("22.7 M", "90.9 MB", "4.50 ms (4.40–4.60)", "no bf16 units"):
        assert shown in text


def test_the_plan_is_printed_as_counts() -> None:
    assert "distillation steps" in printed(plan_table({"distillation_steps": 6000, "share": 0.5}))


def test_progress_without_a_console_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress.plan({"trials": 3})
        progress.say("hello")
        progress.step("rank", 1, 2)
        progress.step("rank", 2, 2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_names_each_stage_and_ends_it(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with Progress(console) as progress:
        progress.step("rank", 1, None)
        for done in range(1, 4):
            progress.step("distil", done, 3)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert ("3/3" in text) if terminal else ("distil: done in" in text)
