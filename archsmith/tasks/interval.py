"""How sure a difference in quality is: the paired bootstrap, and McNemar's exact test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

CONFIDENCE = 0.95
FEWEST = 5  # blocks that a resample is made of, at least


@dataclass(frozen=True)
class Interval:
    """A difference in points (second minus first) with its confidence interval, over `examples` shared examples."""

    difference: float
    low: float
    high: float
    examples: int
    confidence: float = CONFIDENCE


def paired_interval(
    first: np.ndarray,
    second: np.ndarray,
    rng: np.random.Generator,
    quality: Callable[[np.ndarray, np.ndarray | None], float] | None = None,
    resamples: int = 2000,
    block: int = 1,
) -> Interval:
    """Percentile bootstrap of the quality of `second` minus that of `first`, both judged on the same examples.

    `first` and `second` (examples, ...) are records of `Task.judge`; `quality` is `Task.quality`, and every resample
    draws the same rows for both. Without `quality` they are scores (examples,) in [0, 1], and their mean times 100 is
    compared: then a resample is one draw of how often each distinct difference occurs, which is the same law.
    Efron and Tibshirani 1993, chapter 13.

    `block`: examples next to one another that are not independent, such as windows of one series that overlap: so many
    in a row are drawn together (Politis and Romano 1992, the circular block bootstrap), at most a fifth of all.

    >>> half = np.tile([0.0, 1.0], 500)
    >>> paired_interval(half, half, np.random.default_rng(0))
    Interval(difference=0.0, low=0.0, high=0.0, examples=1000, confidence=0.95)
    """
    n = len(first)
    if len(second) != n or n == 0:
        raise ValueError(f"a paired comparison needs the same examples, at least one; got {n} and {len(second)}")
    if quality is None and block == 1:
        values, counts = np.unique(np.asarray(second, float) - np.asarray(first, float), return_counts=True)
        drawn = rng.multinomial(n, counts / n, size=resamples) @ values * (100.0 / n)
        difference = float(values @ counts) * 100.0 / n
    else:
        measure = quality or _mean_points
        difference = measure(second, None) - measure(first, None)
        drawn = np.empty(resamples)
        together = max(1, min(block, n // FEWEST))
        for i in range(resamples):
            begins = rng.integers(0, n, -(-n // together))
            rows = ((begins[:, None] + np.arange(together)) % n).reshape(-1)[:n]
            drawn[i] = measure(second, rows) - measure(first, rows)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(difference, float(low), float(high), n, CONFIDENCE)


def _mean_points(scores: np.ndarray, rows: np.ndarray | None) -> float:
    return 100.0 * float(np.mean(scores if rows is None else scores[rows]))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided exact p-value that two classifiers are right equally often; both (examples,) bool, right or wrong.

    McNemar 1947, with the binomial law of the examples on which they disagree.

    >>> mcnemar(np.array([True] * 10), np.array([True] * 5 + [False] * 5))
    0.0625
    """
    only_first = int(np.sum(np.asarray(first, bool) & ~np.asarray(second, bool)))
    only_second = int(np.sum(~np.asarray(first, bool) & np.asarray(second, bool)))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
