"""Search strategies on NAS-Bench-201: what each finds within 100 and 200 evaluations, against what others measured.

Each strategy runs with its defaults. Validation accuracy after 200 epochs decides; test accuracy is reported, and never
seen. `OURS` is one strategy with one set of settings for all rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from record import Record, main

from archsmith.evaluate.nasbench201 import DATA
from archsmith.evaluate.replay import Replay
from archsmith.evaluate.tabular import Table
from archsmith.jobs.bench import Benchmark, search

OBJECTIVE = "val_error"
OURS = "bayesian"
AT = (100, 200)
MUST = {("cifar10", 100): 94.33, ("cifar10", 200): 94.365, ("cifar100", 100): 73.40, ("cifar100", 200): 73.50}
# Means that others reached on this table, which our own controls must meet within three combined standard errors.
CONTROLS = {
    ("evolution", "cifar10", 100): 94.17,
    ("evolution", "cifar10", 200): 94.26,
    ("evolution", "cifar100", 100): 72.82,
    ("evolution", "cifar100", 200): 73.27,
    ("local", "cifar10", 100): 94.01,
    ("random", "cifar10", 100): 93.77,
}
OTHERS = (
    "swarm", "annealing", "genetic", "q-learning", "deep-q", "reinforce", "ppo", "bananas", "boosting", "transformer",
    "asha", "hyperband", "bohb",
)  # fmt: skip


def run(record: Record, options: argparse.Namespace) -> None:
    """Every strategy, data set and seed."""
    names = options.strategies or ["random", "evolution", "local", OURS, *OTHERS]
    file = record.data / "data" / "nb201" / "nb201.npz"
    context = multiprocessing.get_context("spawn")
    found: dict[tuple[str, str, int], np.ndarray] = {}
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        for name in names:
            for data in options.data_sets:
                began = time.perf_counter()
                benchmark = Benchmark(f"nb201-{data}={file}")
                calls = [pool.submit(search, benchmark, name, max(AT), seed) for seed in range(options.seeds)]
                rows = [call.result() for call in calls]
                record.say(f"{name}, {data}: wall", time.perf_counter() - began, "s")
                report(record, benchmark.table(), name, data, rows, found)


def report(
    record: Record,
    table: Table,
    name: str,
    data: str,
    rows: list[Replay],
    found: dict[tuple[str, str, int], np.ndarray],
) -> None:
    """The numbers of one strategy on one data set."""
    least = table.columns[OBJECTIVE].min()
    for budget in AT:
        best = [row.best_at([budget])[0] for row in rows]
        tests = np.array([100 - row.reported[i, 0] for row, i in zip(rows, best, strict=True) if i is not None])
        regret = np.array([row.values[i, 0] - least for row, i in zip(rows, best, strict=True) if i is not None])
        found[name, data, budget] = tests
        error = float(tests.std(ddof=1) / len(tests) ** 0.5)
        must = None
        if name == OURS:
            must = bool(tests.mean() >= MUST[data, budget])
        elif (name, data, budget) in CONTROLS:
            must = bool(abs(tests.mean() - CONTROLS[name, data, budget]) <= 3 * 2**0.5 * error)
        elif name in OTHERS and budget == max(AT) and ("random", data, budget) in found:
            control = found["random", data, budget]
            apart = (tests.mean() - control.mean()) / (error**2 + control.var(ddof=1) / len(control)) ** 0.5
            record.say(f"{name}, {data}, {budget}: standard errors above random", float(apart), "", bool(apart >= 2))
        record.say(f"{name}, {data}, {budget}: test accuracy", float(tests.mean()), f"% (SE {error:.3f})", must)
        record.say(f"{name}, {data}, {budget}: validation regret", float(regret.mean()), "points")
    early = [row.best_at([128])[0] for row in rows]
    optimum = np.mean([i is not None and row.values[i, 0] <= least + 1e-6 for row, i in zip(rows, early, strict=True)])
    asked = name == OURS and data == "cifar10"
    record.say(
        f"{name}, {data}: optimum within 128",
        float(100 * optimum),
        "% of seeds",
        bool(optimum >= 0.95) if asked else None,
    )
    seconds = np.mean([row.seconds / max(1, len(row.values)) for row in rows])
    record.say(f"{name}, {data}: a proposal", float(1e3 * seconds), "ms")


if __name__ == "__main__":
    main(
        "nb201",
        run,
        ("--seeds", {"type": int, "default": 100}),
        ("--workers", {"type": int, "default": 2}),
        ("--strategies", {"nargs": "+", "default": None}),
        ("--data-sets", {"nargs": "+", "default": list(DATA)}),
    )
