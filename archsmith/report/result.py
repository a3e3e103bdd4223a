"""What a run found: `result.json`, a stable schema (docs/result.md names every field and its unit)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from archsmith.errors import BadInput
from archsmith.report.environment import Environment
from archsmith.report.plain import read_json, write_json

SCHEMA = 1
"""Raised when a field changes its meaning or goes; new optional fields do not raise it."""

Value = bool | int | float | str


@dataclass(frozen=True)
class Variant:
    """One model as it would be shipped, measured. Quality in points on `measured_on`; NaN is not a value, None is.

    `latency_interval` and `quality_interval` are 95 % intervals. `path` is relative to the run's folder, None where
    nothing was written. `architecture` is what was chosen; empty for the original's own. `decode_ms`: of each further
    token that a decoder generates with its cache, None where it was not measured.
    """

    name: str
    quality: float | None
    latency_ms: float | None
    runtime: str
    precision: str
    parameters: int
    macs: int | None
    bytes: int
    path: str | None = None
    latency_interval: tuple[float, float] | None = None
    quality_interval: tuple[float, float] | None = None
    peak_bytes: int | None = None
    decode_ms: float | None = None
    measured_on: str = "validation"
    architecture: Mapping[str, Value] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """A target as the user wrote it, and in the same unit what was measured and the floor, the best within reach."""

    target: str
    value: float | None
    met: bool
    floor: float | None = None


@dataclass(frozen=True)
class Holdout:
    """The part that is read once. `difference` = best - original, points, on the same `n` examples; 95 % interval."""

    n: int
    original: float
    best: float
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Result:
    """What `optimize` gives back. `ladder` from the original down to all together; `front` from fast to good. `found`:
    by a search from nothing, so that the original is the network as it was trained.

    `folder` is where the run lies; it is not written into the file, so that a run can be moved.
    """

    task: str
    metric: str
    original: Variant
    best: Variant
    ladder: tuple[Variant, ...]
    front: tuple[Variant, ...]
    targets: tuple[Outcome, ...]
    architecture: Mapping[str, Value]
    holdout: Holdout | None
    environment: Environment
    seconds: Mapping[str, float]
    found: bool = False
    schema: int = SCHEMA
    folder: Path | None = field(default=None, compare=False, metadata={"written": False})

    @property
    def speedup(self) -> float | None:
        """The original's latency over the best's; None where either was not measured."""
        if not self.original.latency_ms or not self.best.latency_ms:
            return None
        return self.original.latency_ms / self.best.latency_ms

    def save(self, folder: str | Path) -> Path:
        """Copy what ships (`model/` of the run) and `result.json` into a new or empty folder; raises `BadInput`."""
        goal = Path(folder)
        if self.folder is None or not (self.folder / "model").is_dir():
            raise BadInput("a result is saved from its run's folder", str(self.folder), "", "read it with read_result")
        if goal.exists() and (not goal.is_dir() or any(goal.iterdir())):
            raise BadInput("a result is saved into a new or empty folder", "files in it", str(goal), "name another")
        shutil.copytree(self.folder / "model", goal, dirs_exist_ok=True)

        def moved(variant: Variant) -> Variant:
            kept = variant.path is not None and variant.path.split("/")[0] == "model"
            return replace(variant, path=(str(variant.path).removeprefix("model").lstrip("/") or ".") if kept else None)

        here = replace(
            self,
            original=moved(self.original),
            best=moved(self.best),
            ladder=tuple(moved(rung) for rung in self.ladder),
            front=tuple(moved(point) for point in self.front),
        )
        write_json(goal / "result.json", here)
        return goal


def write_result(result: Result, run: str | Path) -> Result:
    """Write `run/result.json`, whole or not at all; the result that is returned knows its folder."""
    write_json(Path(run) / "result.json", result)
    return replace(result, folder=Path(run))


def read_result(run: str | Path) -> Result:
    """Read a run's `result.json`. Raises `BadInput` where it is missing, broken, or of another schema."""
    path = Path(run) / "result.json"
    result = read_json(path, Result)
    if result.schema != SCHEMA:
        remedy = "read it with the archsmith that wrote it"
        raise BadInput(f"this archsmith reads schema {SCHEMA}", str(result.schema), str(path), remedy)
    return replace(result, folder=Path(run))
