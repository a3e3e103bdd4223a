"""Read the user's data into columns: CSV, TSV, JSON lines, parquet, or a `datasets` name; errors have file and line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsmith.errors import BadInput


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length. `lines` is the line of the file on which each row begins, None without lines."""

    source: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def place(self, row: int) -> str:
        """Where a row stands: "train.tsv:17", or "train.parquet, row 16" (counted from 1) where there are no lines."""
        return f"{self.source}:{self.lines[row]}" if self.lines is not None else f"{self.source}, row {row + 1}"

    def strings(self, name: str) -> list[str]:
        """A column as text; whole numbers lose their ".0". Raises `BadInput` on an empty or nested value."""
        if name not in self.columns:
            raise BadInput(
                "a named column must exist", repr(name), self.source, f"the columns are {', '.join(self.columns)}"
            )
        return [self._string(value, name, row) for row, value in enumerate(self.columns[name])]

    def _string(self, value: Any, name: str, row: int) -> str:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, (bool, int, float)) and value == value:
            return str(int(value)) if isinstance(value, bool) else str(value)
        if isinstance(value, str) and value.strip():
            if not _encodes(value):
                law = f"column {name!r} must hold text"
                raise BadInput(law, "half a character (a lone surrogate)", self.place(row), "write the text out again")
            return value
        law = f"column {name!r} must hold a text or a number in every row"
        found = "nothing" if value is None or value != value or value == "" or isinstance(value, str) else repr(value)
        raise BadInput(law, found[:60], self.place(row), "fill the row in or remove it")


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def read(source: str | Path) -> Table:
    """Read a file by its ending (.csv .tsv .jsonl .ndjson .json .parquet), or a folder or name known to `datasets`.

    A `datasets` name is written `NAME[@CONFIG][:SPLIT]`; the split is `train` unless given. The first line of a CSV or
    TSV file names its columns; in TSV a quote is a character like any other. Blank lines are passed over.
    Raises `BadInput` with file and line for anything that cannot be read as that.
    """
    path = Path(source)
    reader = READERS.get(path.suffix.lower())
    if reader is None and not path.is_file():
        return _read_datasets(str(source))
    if not path.exists():
        raise BadInput("a data file must exist", repr(str(path)), "", "check the path")
    if reader is None:
        raise BadInput("a data file must end in " + ", ".join(READERS), repr(path.name), "", "rename or convert it")
    if not path.is_file():
        raise BadInput("data must be a file", "a folder", str(path), "name the file in it")
    table = reader(path)
    if not len(table):
        raise BadInput("a data file must have at least one row", "none", str(path), "check the file")
    return table


def read_text(path: Path) -> str:
    """The text of a file. Raises `BadInput` where it cannot be read or is not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(
            "a data file must be readable", str(error.strerror), str(path), "check the path and its permissions"
        ) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise BadInput("text must be UTF-8", found, f"{path}:{line}", "save the file as UTF-8") from None


def _from_records(path: Path, records: Iterator[tuple[int, list[str]]]) -> Table:
    """(line, fields) records, the first of which names the columns, as a table."""
    line, header = next(records, (1, []))
    names = [name.strip() for name in header]
    if not any(names):
        raise BadInput("the first line must name the columns", "nothing", f"{path}:{line}", "check the file")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput("column names must differ", f"{twice!r} twice", f"{path}:{line}", "rename one")
    rows, lines = [], []
    for line, fields in records:
        if len(fields) != len(names):
            law = f"every row must have the {len(names)} fields of the first line"
            raise BadInput(law, str(len(fields)), f"{path}:{line}", "check separators and quotes in that line")
        rows.append(fields)
        lines.append(line)
    return Table(str(path), {name: [row[i] for row in rows] for i, name in enumerate(names)}, lines)


def _read_tsv(path: Path) -> Table:
    lines = enumerate(read_text(path).split("\n"), start=1)
    return _from_records(path, ((n, line.rstrip("\r").split("\t")) for n, line in lines if line.strip()))


def _read_csv(path: Path) -> Table:
    csv.field_size_limit(2**31 - 1)  # documents are long; what is not closed by a quote is said below
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)

    def records() -> Iterator[tuple[int, list[str]]]:
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise BadInput("CSV must be well formed", str(error), f"{path}:{line}", "check its quotes") from None
            if any(field.strip() for field in fields):
                yield line, fields

    return _from_records(path, records())


def _read_jsonl(path: Path) -> Table:
    rows: list[dict[str, Any]] = []
    lines = []
    for n, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            found = f"{error.msg} in column {error.colno}"
            raise BadInput(
                "each line must be one JSON object", found, f"{path}:{n}", "write one object a line"
            ) from None
        except RecursionError:
            raise BadInput("each line must be one JSON object", "deep nesting", f"{path}:{n}", "flatten it") from None
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise BadInput("each line must be one JSON object", f"a {kind}", f"{path}:{n}", "write one object a line")
        if rows and row.keys() != rows[0].keys():
            odd = sorted(row.keys() ^ rows[0].keys())
            law = "every line must have the keys of the first"
            raise BadInput(law, f"a difference in {', '.join(odd)}", f"{path}:{n}", "add or remove the keys")
        rows.append(row)
        lines.append(n)
    return Table(str(path), {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}, lines)


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadInput("a parquet file must be intact", str(error)[:120], str(path), "write it again") from None
    if len(set(table.column_names)) < len(table.column_names):
        raise BadInput("column names must differ", ", ".join(table.column_names)[:120], str(path), "rename one")
    return Table(str(path), {name: table.column(name).to_pylist() for name in table.column_names})


def _read_datasets(name: str) -> Table:
    try:
        import datasets
    except ImportError:
        law = "data must be a file that exists, or a name that the `datasets` package knows"
        raise BadInput(
            law, repr(name), "", "check the path, or install the extra: pip install 'archsmith[datasets]'"
        ) from None
    # A path may hold a colon of its own (C:\data), so only what follows the last one can be a split.
    stem, colon, split = name.rpartition(":")
    stem, split = (stem, split) if colon and "/" not in split and "\\" not in split else (name, "train")
    path, _, config = stem.partition("@")
    try:
        rows = datasets.load_dataset(path, config or None, split=split)
    except Exception as error:  # the package raises what its many loaders raise
        law = "data must be a file that exists, or a name that `datasets` can load"
        raise BadInput(law, repr(name), "", f"check the path; `datasets` says: {str(error)[:160]}") from None
    if not len(rows):
        raise BadInput("a data set must have at least one row", "none", name, "check the split")
    return Table(name, {column: list(rows[column]) for column in rows.column_names})


READERS: Mapping[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_jsonl,
    ".parquet": _read_parquet,
}
