"""The verb `bench`: strategies x tables x seeds, compared fairly: the same budget, the same points, many seeds.

It leaves `curves.csv` (best value so far by whole evaluations, a row each), `table.md` and `bench.html`.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.errors import BadInput
from archsmith.evaluate.nasbench201 import DATA, SHORT, WHOLE, read_npz
from archsmith.evaluate.replay import Replay, replay
from archsmith.evaluate.tabular import Table, read_csv
from archsmith.report.compared import Curves, write_compared
from archsmith.search import STRATEGIES, strategy

NB201 = "nb201-"
FIDELITIES = ("asha", "hyperband", "bohb")
READS_FEATURES = ("bayesian", "bananas", "boosting", "transformer")


@dataclass(frozen=True)
class Benchmark:
    """A table by name: "nb201-cifar10=FILE" or "NAME:COLUMN=FILE.csv"."""

    spec: str

    @property
    def name(self) -> str:
        """What stands before the file."""
        return self.spec.partition("=")[0]

    @property
    def file(self) -> str:
        """Where it lies."""
        return self.spec.partition("=")[2]

    @property
    def objective(self) -> str:
        """The column that decides."""
        return "val_error" if self.name.startswith(NB201) else self.name.partition(":")[2]

    @property
    def report(self) -> tuple[str, ...]:
        """The column that is told of what was found, and never seen."""
        return ("test_error",) if self.name.startswith(NB201) else ()

    def table(self) -> Table:
        """Raises `BadInput` for a file that cannot be read."""
        if self.name.startswith(NB201):
            return read_npz(self.file, self.name.removeprefix(NB201))
        return read_csv(self.file, (self.objective,))

    def check(self) -> None:
        """Raise `BadInput` for a name that is none."""
        known = [NB201 + data for data in DATA]
        if not self.file or (self.name not in known and not self.objective):
            law = "a benchmark is NAME=FILE"
            raise BadInput(law, repr(self.spec), "--benchmark", f"one of {', '.join(known)}, or NAME:COLUMN=FILE.csv")
        if not Path(self.file).is_file():
            raise BadInput("a benchmark's file must exist", "nothing", self.file, "check the path")


def bench(
    benchmarks: Sequence[str],
    strategies: Sequence[str],
    *,
    out: str | Path,
    budget: int = 100,
    seeds: int = 20,
    workers: int = 1,
    on_done: Callable[[str], None] | None = None,
) -> list[Curves]:
    """Run every strategy on every table with every seed, and write what they found into `out`.

    Args:
        benchmarks: "nb201-cifar10=FILE", "nb201-cifar100=FILE" or "NAME:COLUMN=FILE.csv" (the column is minimised).
        strategies: names; "optuna:tpe" for a sampler of Optuna.
        budget: whole evaluations of each search; cheap ones count for their share.

    Raises:
        BadInput: a benchmark, a strategy or a folder that cannot be used; nothing was run.
    """
    tables = [Benchmark(spec) for spec in benchmarks]
    for each in tables:
        each.check()
        for name in strategies:
            made(name, each, _table(each), budget)
    if min(budget, seeds, workers) < 1:
        raise BadInput("budget, seeds and workers are at least 1", f"{budget}, {seeds}, {workers}")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput("a comparison needs an empty folder", "files", str(folder), "name another with --out")
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Curves] = []
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        calls = {
            (each, name): [pool.submit(search, each, name, budget, seed) for seed in range(seeds)]
            for each in tables
            for name in strategies
        }
        for (each, name), rows in calls.items():
            found.append(curves_of(each, name, [row.result() for row in rows], budget))
            if on_done:
                on_done(f"{each.name}, {name}: {found[-1].told()}")
    write_curves(found, folder / "curves.csv")
    write_compared(found, folder)
    return found


def made(name: str, benchmark: Benchmark, table: Table, budget: int) -> Any:
    """The strategy for a benchmark, with its defaults. Raises `BadInput` for a name that is none."""
    plain, _, sampler = name.partition(":")
    options: dict[str, Any] = {"sampler": sampler} if sampler else {}
    if plain in FIDELITIES:
        if not benchmark.name.startswith(NB201):
            raise BadInput(f"{plain} needs cheap values", "a table without", benchmark.name, "leave it out")
        options["levels"] = (SHORT, WHOLE)
    if plain in READS_FEATURES and table.features is not None:
        options["features"] = table.features
    if plain not in STRATEGIES:
        raise BadInput(
            "a strategy is one that is known", repr(name), "--strategy", f"there are: {', '.join(STRATEGIES)}"
        )
    return strategy(plain, [benchmark.objective], budget=budget, **options)


@cache
def _table(benchmark: Benchmark) -> Table:
    """Read once a process."""
    return benchmark.table()


def search(benchmark: Benchmark, name: str, budget: int, seed: int) -> Replay:
    """One search, in a process of its own, on one thread."""
    import torch

    torch.set_num_threads(1)
    table = _table(benchmark)
    whole = float(WHOLE) if benchmark.name.startswith(NB201) else None
    found = made(name, benchmark, table, budget)
    return replay(table, found, [benchmark.objective], budget=budget, seed=seed, report=benchmark.report, epochs=whole)


def curves_of(benchmark: Benchmark, name: str, rows: Sequence[Replay], budget: int) -> Curves:
    """Best value so far, at every whole evaluation, of every seed."""
    at = np.arange(1, budget + 1)
    least = float(_table(benchmark).columns[benchmark.objective].min())
    best = np.full((len(rows), budget), np.nan)
    test = np.full((len(rows), budget), np.nan)
    for row, (mine, told) in zip(rows, zip(best, test, strict=True), strict=True):
        for i, trial in enumerate(row.best_at(at.tolist())):
            if trial is not None:
                mine[i] = row.values[trial, 0]
                told[i] = row.reported[trial, 0] if benchmark.report else np.nan
    seconds = float(np.mean([row.seconds / max(1, len(row.values)) for row in rows]))
    return Curves(benchmark.name, name, benchmark.objective, best - least, test, seconds)


def write_curves(found: Sequence[Curves], path: Path) -> None:
    """A row for each benchmark, strategy, seed and evaluation."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["benchmark", "strategy", "seed", "evaluations", "regret", "test"])
        for curves in found:
            for seed in range(len(curves.regret)):
                for at, (regret, test) in enumerate(zip(curves.regret[seed], curves.test[seed], strict=True), 1):
                    writer.writerow([curves.benchmark, curves.strategy, seed, at, f"{regret:.5g}", f"{test:.5g}"])
