"""Timing: order, intervals, ratios, and that nothing of the machine is left changed."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.cost import pinned, ratio, sample_times, summarise, time_sessions
from archsmith.cost.measure import FEWEST, median_interval
from archsmith.cost.memory import cpu_time
from archsmith.errors import BadInput


def busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_a_call_of_twice_the_work_takes_twice_the_time() -> None:
    calls = {"one": lambda: busy(0.002), "two": lambda: busy(0.004)}
    samples = sample_times(calls, 25, 1, np.random.default_rng(0), clock="cpu")
    assert 1.8 < ratio(samples["two"], samples["one"]).median < 2.2
    assert 1.9 < summarise(samples["one"]).median_ms < 2.6


def test_calls_are_interleaved_in_random_order_after_warming_up() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    samples = sample_times(calls, 8, 2, np.random.default_rng(1))
    assert order[:6] == list("aabbcc")
    assert order[6::2] == order[7::2], "each is called once untimed, then timed"
    timed = order[7::2]
    rounds = [tuple(timed[start : start + 3]) for start in range(0, len(timed), 3)]
    assert all(sorted(each) == list("abc") for each in rounds) and len(rounds) == 8 == len(samples["a"])
    assert len(set(rounds)) > 1


def test_timing_stops_at_the_cap_but_not_before_the_fewest() -> None:
    samples = sample_times({"slow": lambda: time.sleep(0.01)}, 10_000, 0, np.random.default_rng(0), seconds=0.0)
    assert len(samples["slow"]) == FEWEST


def test_timing_stops_when_the_interval_is_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(clock))
    samples = sample_times({"exact": lambda: None}, 1000, 0, np.random.default_rng(0))
    assert len(samples["exact"]) == FEWEST and set(samples["exact"]) == {1.0}


@pytest.mark.parametrize(("calls", "repeats"), [({}, 5), ({"a": lambda: None}, 0)])
def test_nothing_to_time_is_an_error(calls: dict[str, object], repeats: int) -> None:
    with pytest.raises(BadInput, match="timing needs a call"):
        time_sessions(calls, repeats, 0, np.random.default_rng(0))  # type: ignore[arg-type]


def test_the_interval_covers_the_median_19_times_in_20() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(600):
        low, high = median_interval(rng.lognormal(0.0, 1.0, 31))
        covered += low <= 1.0 <= high
    assert 0.93 <= covered / 600 <= 0.99


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=60))
@settings(max_examples=80, deadline=None)
def test_the_median_lies_in_its_interval(times: list[float]) -> None:
    latency = summarise(np.array(times))
    assert min(times) <= latency.low_ms <= latency.median_ms <= latency.high_ms <= max(times)


def test_threads_are_put_back_even_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), pinned(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_memory_that_was_taken_and_freed_is_seen() -> None:
    take = "import numpy as np; from archsmith.cost.memory import process_peak; np.ones(4 * 10**8, dtype=np.uint8); "
    held = np.ones(10**9, dtype=np.uint8)  # what the starting process holds is none of the other's
    child = [sys.executable, "-c", take + "print(process_peak())"]
    peak = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    assert held[-1] == 1 and 4e8 < peak < 9e8


def test_cpu_seconds_do_not_count_sleep() -> None:
    with cpu_time() as asleep:
        time.sleep(0.2)
    with cpu_time() as awake:
        busy(0.1)
    assert asleep.seconds < 0.05 < 0.09 < awake.seconds
