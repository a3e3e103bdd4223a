"""Tabular benchmarks: architectures whose values were all measured once, looked up in place of being trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
from scipy.stats import norm, rankdata

from archsmith.errors import BadInput, first_line
from archsmith.space import Architecture, Choice, Space, Value
from archsmith.trial import Proposal

Features = Callable[[Architecture], np.ndarray]
LEAST = 0.1  # share of a space that a table must have rows for: what it has not is a trial that fails, and costs none


@dataclass(frozen=True, eq=False)
class Table:
    """A space and, for each of its points, a row of numbers by name.

    `columns`: name -> (rows,) float64, all minimised; `row_of`: architecture -> its row. `features`: architecture ->
    numbers about it that cost no training. `objective`: the column that decides; `report`: columns that are told of
    what was found. `epochs`: fidelities that there are columns of, ascending, the last of whole evaluations.
    """

    name: str
    space: Space
    columns: Mapping[str, np.ndarray]
    row_of: Callable[[Architecture], int]
    features: Features | None = None
    objective: str = ""
    report: tuple[str, ...] = ()
    epochs: tuple[float, ...] = ()

    def values(self, architecture: Architecture, names: tuple[str, ...]) -> dict[str, float]:
        """The numbers of these columns. Raises `BadInput` for a column that there is not."""
        row = self.row_of(architecture)
        for name in names:
            if name not in self.columns:
                known = f"there are: {', '.join(self.columns)}"
                raise BadInput("a value must be a column of the table", repr(name), self.name, known)
        return {name: float(self.columns[name][row]) for name in names}


@dataclass(frozen=True, eq=False)
class Lookup:
    """The evaluator of a table: the values of `columns`. A fidelity "epochs" takes the columns measured after so many,
    named as the others with `@epochs` behind."""

    table: Table
    columns: tuple[str, ...]

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Values by the names of the columns. Raises `BadInput` for epochs that there are no columns of."""
        epochs = proposal.fidelity.get("epochs")
        if epochs is not None and epochs not in self.table.epochs:
            known = f"there are: {', '.join(f'{each:g}' for each in self.table.epochs) or 'none'}"
            raise BadInput("a table has the epochs that it is asked for", f"{epochs:g}", self.table.name, known)
        there = self.table.columns
        asked = {
            name: name if epochs is None or f"{name}@{epochs:g}" not in there else f"{name}@{epochs:g}"
            for name in self.columns
        }
        found = self.table.values(proposal.architecture, tuple(asked.values()))
        return {name: found[column] for name, column in asked.items()}


def read_csv(path: str | Path, values: tuple[str, ...]) -> Table:
    """A table with a row for each architecture: the columns named in `values` are what was measured (minimised), all
    others are choices. A combination without a row is no architecture of it.

    Raises `BadInput` for a file that is no such table, a column that there is not, and an architecture that is there
    twice, and one with too few.
    """
    try:
        rows = pacsv.read_csv(str(path))
    except Exception as error:
        raise BadInput("a benchmark is a CSV file with a header", first_line(error), str(path)) from error
    missing = [name for name in values if name not in rows.column_names]
    if missing:
        law, remedy = "a value must be a column of the file", f"there are: {', '.join(rows.column_names)}"
        raise BadInput(law, missing[0], str(path), remedy)
    names = [name for name in rows.column_names if name not in values]
    given: list[list[Value]] = [rows.column(name).to_pylist() for name in names]
    points = [Architecture(dict(zip(names, row, strict=True))) for row in zip(*given, strict=True)]
    at = {point: index for index, point in enumerate(points)}
    if len(at) < len(points):
        twice = next(i for i, point in enumerate(points) if point in points[:i])
        raise BadInput("an architecture is in a benchmark once", f"row {twice + 1} comes again", str(path))
    space = Space({name: Choice(_sorted(column)) for name, column in zip(names, given, strict=True)})
    if len(points) < LEAST * space.size:
        law = f"a benchmark has a row for at least {LEAST:.0%} of the combinations of its choices"
        raise BadInput(law, f"{len(points)} of {space.size}", str(path), "add rows, or leave out values")

    def row_of(architecture: Architecture) -> int:
        if architecture not in at:
            law, found = "an architecture must be in the table", json.dumps(dict(architecture))
            raise BadInput(law, found, str(path))
        return at[architecture]

    columns = {name: np.array(rows.column(name).to_pylist(), dtype=np.float64) for name in values}
    bad = [name for name, column in columns.items() if not np.isfinite(column).all()]
    if bad:
        raise BadInput("values are finite numbers", bad[0], str(path))
    return Table(Path(path).stem, space, columns, row_of, None, values[0])


def with_scores(
    features: Features | None, row_of: Callable[[Architecture], int], columns: list[np.ndarray]
) -> Features:
    """Features with the normal scores of columns behind them: what is known of an architecture before any training."""
    told = np.stack([norm.ppf((rankdata(column) - 0.5) / len(column)) for column in columns], axis=1)

    def both(architecture: Architecture) -> np.ndarray:
        own = np.empty(0) if features is None else features(architecture)
        return np.concatenate([own, told[row_of(architecture)]])

    return both


def _sorted(column: list[Value]) -> list[Value]:
    different = list(dict.fromkeys(column))
    return different if any(isinstance(value, str) for value in different) else sorted(different, key=float)
