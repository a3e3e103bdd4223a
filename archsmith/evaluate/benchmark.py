"""Tables by name, as the command line writes them: NAME=FILE."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from archsmith.errors import BadInput, first_line
from archsmith.evaluate.nasbench101 import read_tfrecord
from archsmith.evaluate.nasbench201 import read_npz, unique
from archsmith.evaluate.nats_bench import WHERE, read_size, read_topology
from archsmith.evaluate.tabular import Lookup, Table, read_csv
from archsmith.trial import Proposal


def read_nb201(path: str, data: str) -> Table:
    """Arrays (`.npz`), or the official files of NAS-Bench-201 and of NATS-Bench's topology space."""
    return read_npz(path, data) if path.endswith(".npz") else read_topology(path, data)


def read_unique(path: str, data: str) -> Table:
    """The same, cells that compute the same as one."""
    return unique(read_nb201(path, data))


READERS: dict[str, Callable[[str], Table]] = {
    "nb101": read_tfrecord,
    **{f"nb201-{data}": partial(read_nb201, data=data) for data in WHERE},
    **{f"nb201-{data}-unique": partial(read_unique, data=data) for data in WHERE},
    **{f"nats-size-{data}": partial(read_size, data=data) for data in WHERE},
}


@dataclass(frozen=True)
class Benchmark:
    """A table by name: "nb201-cifar10=FILE", another of `READERS`, or "NAME:COLUMN,...=FILE.csv"."""

    spec: str

    @property
    def name(self) -> str:
        """What stands before the file."""
        return self.spec.partition("=")[0]

    @property
    def file(self) -> str:
        """Where it lies."""
        return self.spec.partition("=")[2]

    def table(self) -> Table:
        """Raises `BadInput` for a name that is none, and a file that cannot be read."""
        columns = tuple(filter(None, self.name.partition(":")[2].split(",")))
        if not self.file or (self.name not in READERS and not columns):
            law, known = "a benchmark is NAME=FILE", ", ".join(READERS)
            raise BadInput(law, repr(self.spec), "--benchmark", f"one of {known}, or NAME:COLUMN,...=FILE.csv")
        if not Path(self.file).exists():
            raise BadInput("a benchmark's file must exist", "nothing", self.file, "check the path")
        try:
            return READERS[self.name](self.file) if self.name in READERS else read_csv(self.file, columns)
        except BadInput:
            raise
        except Exception as error:  # a damaged file fails wherever it is first looked at
            law = "a benchmark's file must be whole, and what its name says"
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise BadInput(law, reason, self.file, "check name, version and download") from error


@dataclass(frozen=True)
class LookedUp:
    """The evaluator `Lookup` of a benchmark, which every process that it is sent to reads for itself, once."""

    spec: str
    columns: tuple[str, ...]

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        """Values by the names of the columns."""
        return Lookup(_read(self.spec), self.columns)(proposal, rng)


@cache
def _read(spec: str) -> Table:
    return Benchmark(spec).table()
