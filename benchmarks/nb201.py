"""Search strategies on NAS-Bench-201: what each finds within 100 and 200 evaluations, against what others measured.

Each strategy runs with its defaults. Validation accuracy after 200 epochs decides; test accuracy is reported, and never
seen. `OURS` is one strategy with one set of settings for all rows. Models read, beside a cell's operators, the paths
through it and what is known before any training: its parameters and its NASWOT score.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from record import Record, main
from scipy.stats import kendalltau

from archsmith.evaluate.benchmark import Benchmark
from archsmith.evaluate.nasbench201 import DATA
from archsmith.evaluate.replay import Replay, hypervolume, replay
from archsmith.evaluate.tabular import Table
from archsmith.jobs.bench import made, search
from archsmith.search.candidates import Pool
from archsmith.search.gaussian import scores
from archsmith.search.learners import mlp_ensemble
from archsmith.search.meta import learnt_prior
from archsmith.search.transformer import transformer_ensemble
from archsmith.trial import Trial

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
    ("local:eager=false", "cifar10", 100): 94.01,
    ("random", "cifar10", 100): 93.77,
}
OTHERS = (
    "local", "swarm", "annealing", "genetic", "q-learning", "deep-q", "reinforce", "ppo", "bananas", "boosting",
    "transformer", "asha", "hyperband", "bohb",
)  # fmt: skip


WARM, COLD = 50, 100  # evaluations with a past study, and without one
LABELS, KENDALL = 100, 0.65
SECOND, BOTH, SHARE = "latency_ms_1080ti_1", 500, 0.99


def run(record: Record, options: argparse.Namespace) -> None:
    """Every strategy, data set and seed; then what a past study gives, two objectives, and predictors by themselves."""
    names = options.strategies or ["random", "evolution", "local:eager=false", OURS, *OTHERS]
    names = sorted(names, key=lambda name: name != "random")  # first, since others are compared with it
    file = record.data / "data" / "nb201" / "nb201.npz"
    context = multiprocessing.get_context("spawn")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes: BLAS would take two threads in each
    found: dict[tuple[str, str, int], np.ndarray] = {}
    ours: dict[str, list[Replay]] = {}
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        for name in names:
            for data in options.data_sets:
                began = time.perf_counter()
                benchmark = Benchmark(f"nb201-{data}={file}")
                calls = [pool.submit(search, benchmark, name, max(AT), seed) for seed in range(options.seeds)]
                rows = [call.result() for call in calls]
                record.say(f"{name}, {data}: wall", time.perf_counter() - began, "s")
                report(record, benchmark.table(), name, data, rows, found)
                if name == OURS:
                    ours[data] = rows
        if set(ours) == set(DATA):
            for data, other in (DATA, DATA[::-1]):
                pasts = [row.history[:COLD] for row in ours[other]]
                warm = [pool.submit(told, file, data, seed, past) for seed, past in enumerate(pasts)]
                tests = np.array([call.result() for call in warm])
                reached, needed = float(tests.mean()), float(found[OURS, data, COLD].mean())
                error = float(tests.std(ddof=1) / len(tests) ** 0.5)
                record.say(f"past study of {other}, {data}, {WARM}: test accuracy", reached, f"% (SE {error:.3f})")
                record.say(
                    f"past study of {other}, {data}: above {COLD} without", reached - needed, "", reached >= needed
                )
            shares = list(pool.map(share, [file] * 30, range(30)))
            held = bool(np.mean(shares) >= SHARE)
            record.say("two objectives: share of the true hypervolume", float(np.mean(shares)), "", held)
            pairs = np.array(list(pool.map(kendall, [file] * 20, range(20))))
            mlp, transformer = pairs.mean(axis=0)
            record.say("Kendall of the MLP ensemble after 100 labels", float(mlp))
            must = bool(transformer >= max(mlp, KENDALL))
            record.say("Kendall of the Transformer after 100 labels", float(transformer), "", must)


def told(file: Path, data: str, seed: int, past: Sequence[Trial]) -> float:
    """Test accuracy of the best that `OURS` finds within `WARM` evaluations with the study of another data set as past,
    which is the beginning of that of the same seed."""
    torch.set_num_threads(1)
    table = table_of(file, data)
    prior = learnt_prior(table.space, [(past, [OBJECTIVE])], table.features)
    strategy = made(OURS, table, max(AT), prior=prior)
    found = replay(table, strategy, [OBJECTIVE], budget=WARM, seed=seed, report=table.report)
    best = found.best_at([WARM])[0]
    assert best is not None
    return 100 - float(found.reported[best, 0])


def share(file: Path, seed: int) -> float:
    """Of the true hypervolume of CIFAR-100's validation error and a latency, what `OURS` finds."""
    torch.set_num_threads(1)
    table = table_of(file, "cifar100")
    pair = (OBJECTIVE, SECOND)
    points = np.stack([table.columns[name] for name in pair], axis=1)
    worst = points.max(axis=0).tolist()
    found = replay(table, made(OURS, table, BOTH, pair), pair, budget=BOTH, seed=seed)
    return hypervolume(found.values, worst) / hypervolume(points, worst)


def kendall(file: Path, seed: int) -> tuple[float, float]:
    """Of the MLP ensemble and the Transformer, taught the validation of some cells of CIFAR-10, with the test accuracy
    of all others."""
    torch.set_num_threads(1)
    table = table_of(file, "cifar10")
    points = list(table.space.points())
    rows = np.array([table.row_of(point) for point in points])
    x = Pool(table.features).vectors(table.space, points)
    order = np.random.default_rng(seed).permutation(len(points))
    known, left = order[:LABELS], order[LABELS:]
    z = scores(table.columns[OBJECTIVE][rows[known]])
    test = table.columns["test_error"][rows[left]]
    learners = (mlp_ensemble, transformer_ensemble(table.space))
    first, second = (float(kendalltau(learn(x[known], z, seed)(x[left])[0], test).statistic) for learn in learners)
    return first, second


@cache
def table_of(file: Path, data: str) -> Table:
    """Read once a process."""
    return Benchmark(f"nb201-{data}={file}").table()


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
        if name in (OURS, *OTHERS) and budget == max(AT):
            above_random(record, f"{name}, {data}, {budget}", tests, found.get(("random", data, budget)))
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


def above_random(record: Record, row: str, tests: np.ndarray, control: np.ndarray | None) -> None:
    """By how many standard errors test accuracies (seeds,) are above those of the control."""
    if control is None:
        record.say(f"{row}: standard errors above random", "not compared, for want of random")
        return
    spread = (tests.var(ddof=1) / len(tests) + control.var(ddof=1) / len(control)) ** 0.5
    apart = float((tests.mean() - control.mean()) / spread)
    record.say(f"{row}: standard errors above random", apart, "", apart >= 2)


if __name__ == "__main__":
    main(
        "nb201",
        run,
        ("--seeds", {"type": int, "default": 100}),
        ("--workers", {"type": int, "default": 2}),
        ("--strategies", {"nargs": "+", "default": None}),
        ("--data-sets", {"nargs": "+", "default": list(DATA)}),
    )
