"""The verb `bench`: strategies x tables x seeds, compared fairly: the same budget, the same points, many seeds.

It leaves `curves.csv` (best value so far by whole evaluations, a row each), `table.md` and `bench.html`.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from archsmith.errors import BadInput, first_line
from archsmith.evaluate.benchmark import Benchmark
from archsmith.evaluate.replay import Replay, hypervolume, replay
from archsmith.evaluate.tabular import Table
from archsmith.report.compared import Curves, write_compared
from archsmith.search import strategy
from archsmith.space import Space
from archsmith.trial import Strategy, Trial

PROPOSED, TRYING = 30, 3.0  # proposals that a strategy with options makes before a study begins; most seconds for it
FIDELITIES = ("asha", "hyperband", "bohb")
READS_FEATURES = ("portfolio", "bayesian", "bananas", "boosting", "transformer")
READS_PRIOR = ("portfolio", "bayesian")


def bench(
    benchmarks: Sequence[str],
    strategies: Sequence[str],
    *,
    out: str | Path,
    budget: int = 100,
    seeds: int = 20,
    workers: int = 1,
    objectives: Sequence[str] = (),
    on_done: Callable[[str], None] | None = None,
) -> list[Curves]:
    """Run every strategy on every table with every seed, and write what they found into `out`.

    Args:
        benchmarks: "nb201-cifar10=FILE", another that is known, or "NAME:COLUMN,...=FILE.csv" (columns are minimised).
        strategies: names; "optuna:tpe" for a sampler of Optuna.
        budget: whole evaluations of each search; cheap ones count for their share.
        objectives: columns of every table, in place of each table's own: with several, searches are compared by the
            hypervolume of what they have found.

    Raises:
        BadInput: a benchmark, a strategy or a folder that cannot be used; nothing was run.
    """
    tables = [Benchmark(spec) for spec in benchmarks]
    twice = [each.name for each in tables if sum(other.name == each.name for other in tables) > 1]
    if twice:
        raise BadInput("benchmarks that are compared have names of their own", twice[0], "--benchmark", "rename one")
    for each in tables:
        asked = _objectives(each, objectives)
        for name in strategies:
            tried_out(made(name, _table(each), budget, asked), name, _table(each).space, asked)
    if min(budget, seeds, workers) < 1:
        raise BadInput("budget, seeds and workers are at least 1", f"{budget}, {seeds}, {workers}")
    folder = Path(out)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput("a comparison needs an empty folder", "files", str(folder), "name another with --out")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        law = "a comparison needs a folder that can be made"
        raise BadInput(law, error.strerror or first_line(error), str(folder), "name another with --out") from error
    found: list[Curves] = []
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        calls = {
            (each, name): [pool.submit(search, each, name, budget, seed, tuple(objectives)) for seed in range(seeds)]
            for each in tables
            for name in strategies
        }
        for (each, name), rows in calls.items():
            try:
                found.append(curves_of(each, name, [row.result() for row in rows], budget, objectives))
            except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:  # of an option, late
                pool.shutdown(cancel_futures=True)
                raise _unable(name, error) from error
            write_curves(found, folder / "curves.csv")  # what is there is kept, whatever comes
            write_compared(found, folder)
            if on_done:
                on_done(f"{each.name}, {name}: {found[-1].told()}")
    return found


def made(name: str, table: Table, budget: int, objectives: Sequence[str] = (), **given: Any) -> Strategy:
    """The strategy for a table, with its defaults but for what is given: "local:eager=false", "optuna:tpe".

    Raises `BadInput` for one that is none.
    """
    plain, options = parsed(name)
    if plain in FIDELITIES:
        if len(table.epochs) < 2:
            raise BadInput(f"{plain} needs cheap values", "a table without", table.name, "leave it out")
        options.setdefault("levels", table.epochs)
        _check_levels(table, options)
    asked = objectives or [table.objective]
    if beyond := [each for each in options.get("limits") or {} if each not in asked]:
        law = "limits on a table are on what is searched for"
        raise BadInput(law, beyond[0], table.name, f"give --objective {beyond[0]} too")
    if plain in READS_FEATURES and table.features is not None:
        options.setdefault("features", table.features)
    return strategy(plain, asked, budget=budget, **{**options, **given})


def _check_levels(table: Table, options: Mapping[str, Any]) -> None:
    """Raise `BadInput` for a resource that the table has not, and levels that are not its epochs up to the last."""
    if options.get("resource", "epochs") != "epochs":
        raise BadInput("the resource of a table is epochs", str(options["resource"]), table.name, "leave it out")
    levels, known = options["levels"], f"there are: {', '.join(f'{each:g}' for each in table.epochs)}"
    if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
        raise BadInput("levels are a list of epochs of the table", repr(levels), table.name, known)
    if unknown := [level for level in levels if level not in table.epochs]:
        raise BadInput("levels are epochs of the table", f"{unknown[0]}", table.name, known)
    if levels[-1] != table.epochs[-1]:  # nothing would ever be measured in full
        law = "the last of the levels is the table's last"
        raise BadInput(law, f"{levels[-1]}", table.name, f"end them with {table.epochs[-1]:g}")


def tried_out(found: Strategy, name: str, space: Space, objectives: Sequence[str]) -> Strategy:
    """The strategy, if with its options it can make its first proposals: those drawn at random, and some behind them.

    Raises `BadInput`.
    """
    history: list[Trial] = []
    until = time.monotonic() + TRYING
    try:
        for number in range(PROPOSED if ":" in name else 1):
            if time.monotonic() > until:
                break
            proposals = found(space, history, 1, np.random.default_rng(number))
            values = dict.fromkeys(objectives, float(number))
            history += [Trial(number, proposal, "complete", values) for proposal in proposals]
    except BadInput:
        raise
    except Exception as error:  # whatever an option out of its range runs into
        raise _unable(name, error) from error
    return found


def _unable(name: str, error: Exception) -> BadInput:
    law = "a strategy must be able to propose with its options"
    return BadInput(law, f"{type(error).__name__}: {first_line(error)}", f"--strategy {name}")


def parsed(name: str) -> tuple[str, dict[str, Any]]:
    """A strategy as it is written in one word: its name, and options after a colon.

    >>> parsed("optuna:tpe"), parsed("genetic:population=12,selection=roulette")
    (('optuna', {'sampler': 'tpe'}), ('genetic', {'population': 12, 'selection': 'roulette'}))
    """
    plain, _, rest = name.partition(":")
    options: dict[str, Any] = {}
    for each in filter(None, re.split(r",(?![^\[]*\])(?![^{]*})", rest)):
        key, sign, value = each.partition("=")
        key, value = (key, value) if sign else ("sampler", key)
        if key in ("objectives", "budget"):
            raise BadInput("objectives and budget have options of their own", each, "--strategy", "leave it out there")
        try:
            options[key] = json.loads(value, parse_constant=str)  # NaN is no number that an option can be
        except ValueError:
            options[key] = value
    return plain, options


@cache
def _table(benchmark: Benchmark) -> Table:
    """Read once a process."""
    return benchmark.table()


def _objectives(benchmark: Benchmark, asked: Sequence[str]) -> tuple[str, ...]:
    """Of a table: its own, or those asked for. Raises `BadInput` for one that is no column."""
    table = _table(benchmark)
    unknown = [name for name in asked if name not in table.columns]
    if unknown:
        known = f"there are: {', '.join(table.columns)}"
        raise BadInput("an objective is a column of the table", unknown[0], table.name, known)
    return tuple(asked) or (table.objective,)


def search(benchmark: Benchmark, name: str, budget: int, seed: int, objectives: tuple[str, ...] = ()) -> Replay:
    """One search, in a process of its own, on one thread."""
    import torch

    torch.set_num_threads(1)
    table, asked = _table(benchmark), _objectives(benchmark, objectives)
    found = made(name, table, budget, asked)
    with threadpool_limits(1):  # of BLAS: several searches at once would wait for one another's threads
        return replay(table, found, asked, budget=budget, seed=seed, report=table.report)


def curves_of(
    benchmark: Benchmark, name: str, rows: Sequence[Replay], budget: int, objectives: Sequence[str] = ()
) -> Curves:
    """Best value so far, or with several objectives the hypervolume, at every whole evaluation, of every seed."""
    at, table = np.arange(1, budget + 1), _table(benchmark)
    seconds = float(np.mean([row.seconds / max(1, len(row.values)) for row in rows]))
    asked = _objectives(benchmark, objectives)
    if len(asked) > 1:
        points = np.stack([table.columns[each] for each in asked], axis=1)
        missed = np.stack([_missed(row, points, at) for row in rows])
        unseen = np.full_like(missed, np.nan)
        return Curves(benchmark.name, name, ", ".join(asked), missed, unseen, seconds, "hypervolume missed, %")
    least = float(np.nanmin(table.columns[asked[0]]))
    best = np.full((len(rows), budget), np.nan)
    test = np.full((len(rows), budget), np.nan)
    for row, (mine, told) in zip(rows, zip(best, test, strict=True), strict=True):
        for i, trial in enumerate(row.best_at(at.tolist())):
            if trial is not None:
                mine[i] = row.values[trial, 0]
                told[i] = row.reported[trial, 0] if table.report else np.nan
    return Curves(benchmark.name, name, asked[0], best - least, test, seconds)


def _missed(row: Replay, points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(evaluations,) per cent of the table's hypervolume that is not found yet, below the worst of each objective."""
    reference = points.max(axis=0).tolist()
    most, found = hypervolume(points, reference), np.full(len(at), np.nan)
    for i, budget in enumerate(at):
        able = row.values[row.whole & (row.cost <= budget + 1e-9)]
        if len(able):
            found[i] = 100 * (1 - hypervolume(able, reference) / most) if most > 0 else 0.0
    return found


def write_curves(found: Sequence[Curves], path: Path) -> None:
    """A row for each benchmark, strategy, seed and evaluation."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["benchmark", "strategy", "seed", "evaluations", "regret", "test"])
        for curves in found:
            for seed in range(len(curves.regret)):
                for at, (regret, test) in enumerate(zip(curves.regret[seed], curves.test[seed], strict=True), 1):
                    writer.writerow([curves.benchmark, curves.strategy, seed, at, f"{regret:.5g}", f"{test:.5g}"])
