"""Latency by the clock: warmed up, interleaved in random order, medians with intervals, ratios within one run.

Other work on the machine slows whatever happens to run beside it. Interleaving spreads that evenly over all that is
compared, and a ratio is taken inside each round, where both sides saw the same machine.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.stats import binom

from archsmith.cost.runtime import Latency
from archsmith.errors import BadInput

Calls = Mapping[str, Callable[[], object]]
Clock = Literal["wall", "cpu"]

# The interval's half width, as a share of the median, at which more rounds teach nothing that matters.
NARROW = 0.01
FEWEST = 10


@dataclass(frozen=True)
class Ratio:
    """How many times longer one call takes than another: median over rounds and its 95 % interval."""

    median: float
    low: float
    high: float


def time_sessions(
    calls: Calls, repeats: int, warmup: int, rng: np.random.Generator, seconds: float = float("inf")
) -> dict[str, Latency]:
    """Time each call at most `repeats` times after `warmup` calls; stop early when all intervals are within 1 %.

    `seconds` caps the wall time of the timed rounds (ten are always run, or `repeats` if fewer).

    >>> timed = time_sessions({"sum": lambda: sum(range(1000))}, 20, 2, np.random.default_rng(0))
    >>> timed["sum"].low_ms <= timed["sum"].median_ms <= timed["sum"].high_ms
    True
    """
    return {name: summarise(ms) for name, ms in sample_times(calls, repeats, warmup, rng, seconds).items()}


def sample_times(
    calls: Calls,
    repeats: int,
    warmup: int,
    rng: np.random.Generator,
    seconds: float = float("inf"),
    clock: Clock = "wall",
) -> dict[str, np.ndarray]:
    """Milliseconds of each call in each round, name -> (rounds,). Round i of all names is the same moment.

    In its turn a call is made twice and the second is timed, as in a service that runs it steadily: a small network
    that comes after a large one was seen 12 % slower the first time.

    `clock` "cpu" counts the CPU time of this process instead: for calls of one thread it is the wall time of an idle
    machine, and it does not count the time in which other work held the core.

    Raises `BadInput` for fewer than one repeat or no call.
    """
    if repeats < 1 or not calls:
        raise BadInput("timing needs a call and at least one repeat", f"{len(calls)} calls, {repeats} repeats")
    for call in calls.values():
        for _ in range(warmup):
            call()
    now = time.process_time_ns if clock == "cpu" else time.perf_counter_ns
    names = list(calls)
    rounds: list[list[float]] = []
    started = time.perf_counter()
    while len(rounds) < repeats:
        times = [0.0] * len(names)
        for position in rng.permutation(len(names)):
            call = calls[names[position]]
            call()  # untimed: brings the network back into the caches that its neighbour filled
            before = now()
            call()
            times[position] = (now() - before) / 1e6
        rounds.append(times)
        if len(rounds) < FEWEST:
            continue
        if time.perf_counter() - started > seconds:
            break
        if len(rounds) % FEWEST == 0 and _all_narrow(np.array(rounds)):
            break
    table = np.array(rounds)
    return {name: table[:, column] for column, name in enumerate(names)}


def summarise(ms: np.ndarray) -> Latency:
    """The median of (rounds,) milliseconds and its distribution-free 95 % interval, from order statistics.

    >>> summarise(np.arange(1.0, 101.0))
    Latency(median_ms=50.5, low_ms=40.0, high_ms=61.0, runs=100)
    """
    low, high = median_interval(ms)
    return Latency(float(np.median(ms)), low, high, len(ms))


def ratio(slow_ms: np.ndarray, fast_ms: np.ndarray) -> Ratio:
    """Median over rounds of slow / fast, both (rounds,) of one run, with its 95 % interval.

    >>> ratio(np.full(20, 6.0), np.full(20, 2.0))
    Ratio(median=3.0, low=3.0, high=3.0)
    """
    quotients = slow_ms / fast_ms
    low, high = median_interval(quotients)
    return Ratio(float(np.median(quotients)), low, high)


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """A distribution-free interval of the median: the order statistics that binomial(n, 1/2) puts in its tails.

    With fewer than six values no interval reaches 95 %; then it is the whole range.
    """
    ordered = np.sort(values)
    below = int(binom.ppf((1 - confidence) / 2, len(ordered), 0.5)) - 1
    below = min(max(below, 0), (len(ordered) - 1) // 2)
    return float(ordered[below]), float(ordered[len(ordered) - 1 - below])


def _all_narrow(table: np.ndarray) -> bool:
    for column in table.T:
        low, high = median_interval(column)
        if high - low > 2 * NARROW * float(np.median(column)):
            return False
    return True


@contextlib.contextmanager
def pinned(threads: int = 1) -> Iterator[None]:
    """PyTorch uses `threads` threads inside, and what it used before afterwards.

    >>> before = torch.get_num_threads()
    >>> with pinned(1):
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
