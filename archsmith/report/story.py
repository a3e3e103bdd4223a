"""What the page tells beside the result: `story.json`, plain data that a job gathers from its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


def write_story(story: Story, run: Path) -> Path:
    """Write `run/story.json`, whole or not at all."""
    return write_json(run / "story.json", story)


def read_story(run: str | Path) -> Story:
    """Read a run's `story.json`. Raises `BadInput` where it is missing or broken."""
    return read_json(Path(run) / "story.json", Story)
