"""A series out of a table: numbers in the order of time, and where a step is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.errors import BadInput
from archsmith.tasks.columns import NUMBERS_OF_ROWS
from archsmith.tasks.read import Table, read

TIMES = ("date", "datetime", "date_time", "time", "timestamp", "ds")
FORMATS = tuple(
    f"{day}{hour}" for day in ("%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y") for hour in ("", " %H:%M", " %H:%M:%S")
)
REGULAR = 0.95  # share of steps of the usual length from which on a longer one is a gap, and not the calendar's


@dataclass(frozen=True, eq=False)
class Series:
    """`values` (steps, columns) float64; `times` (steps,) float64 in seconds, rising, None without a column of times.

    `gaps` (steps,) bool: that steps are missing before this one.
    """

    source: str
    columns: tuple[str, ...]
    values: np.ndarray
    times: np.ndarray | None
    gaps: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def span(self, begin: int, end: int) -> Series:
        """Some of its steps."""
        times = None if self.times is None else self.times[begin:end]
        return Series(self.source, self.columns, self.values[begin:end], times, self.gaps[begin:end])


def read_series(source: str | Path) -> Series:
    """The numeric columns of a table, in the order of its column of times: the one with a usual name, or else the first
    that holds dates. Rows are taken as they stand where there is none.

    Raises `BadInput` with file and line for what is no finite number, no time, or the same time twice.
    """
    table = read(source)
    when = _time_column(table)
    names = tuple(name for name in table.columns if name != when and name.lower() not in NUMBERS_OF_ROWS)
    if not names:
        raise BadInput("a series has a column of numbers", "none", table.source, "check the file")
    values = np.stack([_numbers(table, name) for name in names], axis=1)
    times = None
    if when is not None:
        times = _seconds(table.columns[when])
        assert times is not None
        order = np.argsort(times, kind="stable")
        values, times = values[order], times[order]
        twice = np.flatnonzero(np.diff(times) == 0)
        if len(twice):
            law, place = f"a time stands in one row of column {when!r}", table.place(int(order[twice[0] + 1]))
            raise BadInput(law, f"{table.columns[when][order[twice[0] + 1]]} again", place, "give one series a file")
    return Series(table.source, names, values, times, _gaps(times, len(values)))


def _gaps(times: np.ndarray | None, steps: int) -> np.ndarray:
    """Steps are missing where nearly all are of one length and one is longer. Months and working days are not all of
    one length; there nothing is missing."""
    gaps = np.zeros(steps, dtype=bool)
    if times is not None and steps > 2:
        lengths = np.diff(times)
        usual = float(np.median(lengths))
        if np.mean(np.isclose(lengths, usual)) >= REGULAR:
            gaps[1:] = lengths > 1.5 * usual
    return gaps


def _time_column(table: Table) -> str | None:
    for name in table.columns:
        if name.lower() in TIMES:
            if _seconds(table.columns[name]) is None:
                row = next((i for i, value in enumerate(table.columns[name]) if _seconds([value]) is None), 0)
                law, remedy = f"column {name!r} must hold times of one form", "write them as 2024-01-31 12:00:00"
                raise BadInput(law, repr(table.columns[name][row])[:60], table.place(row), remedy)
            return name
    for name, column in table.columns.items():
        if any(_number(value) is None for value in column[:1]) and _seconds(column) is not None:
            return name
    return None


def _seconds(column: Sequence[Any]) -> np.ndarray | None:
    """(rows,) float64: times as seconds, or as the numbers that they are; None where they are neither."""
    numbers = [_number(value) for value in column]
    if all(number is not None for number in numbers):
        return np.array(numbers, dtype=np.float64)
    readers: list[Callable[[Any], datetime]] = [_iso, *(_by(form) for form in FORMATS)]
    for reader in readers:
        try:
            return np.array([reader(value).timestamp() for value in column], dtype=np.float64)
        except (ValueError, TypeError):
            continue
    return None


def _iso(value: Any) -> datetime:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    found = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
    # Without a zone of its own a time is not this machine's: there, an hour a year would be missing.
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _by(form: str) -> Callable[[Any], datetime]:
    return lambda value: datetime.strptime(value.strip(), form).replace(tzinfo=UTC)


def _numbers(table: Table, name: str) -> np.ndarray:
    """(rows,) float64. What is missing is not made up: a forecast would learn what was."""
    numbers = [_number(value) for value in table.columns[name]]
    bad = [row for row, number in enumerate(numbers) if number is None]
    if bad:
        law = f"column {name!r} must hold a finite number in every row"
        value = table.columns[name][bad[0]]
        empty = value is None or value != value or not str(value).strip()
        more = f" and in {len(bad) - 1} more rows" if len(bad) > 1 else ""
        remedy = "fill in what is missing, or remove the column"
        raise BadInput(law, ("nothing" if empty else repr(value)[:60]) + more, table.place(bad[0]), remedy)
    return np.array(numbers, dtype=np.float64)


def _number(value: Any) -> float | None:
    """A finite number, or None for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
