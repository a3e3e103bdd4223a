"""What the page tells beside the result, as plain data: `story.json`, which a job gathers from its stages, and
`search.json`, how a search went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from archsmith.report.drawn import harmless
from archsmith.report.plain import read_json, write_json

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Width:
    """One axis before and after: units of the original and of the best (0: gone with its block or layer).

    `kind` and `layer` are the axis's own (`archsmith.model.anatomy.Axis`); layer None: not inside a layer.
    """

    name: str
    kind: str
    original: int
    best: int
    layer: str | None = None


@dataclass(frozen=True)
class LatencyPoint:
    """What the latency model said of an architecture before it was measured, milliseconds."""

    name: str
    predicted_ms: float
    measured_ms: float
    runtime: str
    precision: str = "fp32"


@dataclass(frozen=True)
class Verdict:
    """A certificate, as it is shown: `error` is the largest deviation over the output's scale, None where none was."""

    subject: str
    accepted: bool
    reason: str
    error: float | None = None


@dataclass(frozen=True)
class Snippet:
    """Code that loads the result, with the folder of the run as working directory."""

    title: str
    code: str


@dataclass(frozen=True)
class Story:
    """All parts may be empty; the page leaves out what is.

    `plan`: counts that the minutes were turned into; `widths`: every axis in the order of the network;
    `split`: counts of rows kept and removed in each part; `frozen`: what cannot change -> why.
    """

    title: str = "archsmith"
    plan: Mapping[str, Scalar] = field(default_factory=dict)
    widths: tuple[Width, ...] = ()
    latency_points: tuple[LatencyPoint, ...] = ()
    certificates: tuple[Verdict, ...] = ()
    frozen: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, int] = field(default_factory=dict)
    loading: tuple[Snippet, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tried:
    """A trial that ended well: its value of each objective, and whether it was tried in full."""

    number: int
    values: Mapping[str, float]
    whole: bool = True


@dataclass(frozen=True)
class Difference:
    """A choice of the best and of the runner-up; None: not there."""

    choice: str
    best: str | None
    other: str | None


@dataclass(frozen=True)
class Life:
    """A value of a choice: its share of the trials in which that was active, in each third of the search, None where it
    was in none; mean and best of its trials, None where it has none."""

    value: str
    shares: tuple[float | None, ...]
    mean: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class Searched:
    """How a search went. Values are minimised.

    `objective`: by which the best is the best; `counts`: of trials by how they ended; `front`: numbers of the trials
    that no other beats; `best` and `other`: those of the best and of the runner-up; `course`: when the best came and
    why the search ended, in words; `why`: the one over the other, in words; `importances`: choice -> its share of what
    makes the objective vary; `lives`: choice -> its values; `doubts`: how little either says, in words; `drawing`: the
    best network as HTML.
    """

    title: str
    objective: str
    objectives: tuple[str, ...]
    counts: Mapping[str, int]
    trials: tuple[Tried, ...] = ()
    front: tuple[int, ...] = ()
    best: int | None = None
    other: int | None = None
    course: str = ""
    why: str = ""
    differences: tuple[Difference, ...] = ()
    importances: Mapping[str, float] = field(default_factory=dict)
    lives: Mapping[str, tuple[Life, ...]] = field(default_factory=dict)
    doubts: tuple[str, str] = ("", "")
    drawing: str = ""


def write_story(story: Story, run: Path) -> Path:
    """Write `run/story.json`, whole or not at all."""
    return write_json(run / "story.json", story)


def read_story(run: str | Path) -> Story:
    """Read a run's `story.json`. Raises `BadInput` where it is missing or broken."""
    return read_json(Path(run) / "story.json", Story)


def read_searched(run: str | Path) -> Searched | None:
    """Read a run's `search.json`; None where nothing was searched. Raises `BadInput` where it is broken."""
    path = Path(run) / "search.json"
    found = read_json(path, Searched) if path.exists() else None
    return found and replace(found, drawing=harmless(found.drawing))
