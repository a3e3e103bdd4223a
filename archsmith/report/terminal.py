"""What a run prints: the plan, bars with the time left, and the tables. Everything here is a rich renderable."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from archsmith.report import show
from archsmith.report.result import Result


class Progress:
    """What a job says while it works; silent without a console. Use it as a context, so that the bars end.

    >>> with Progress() as progress:
    ...     progress.step("rank", 3, 10)
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, float] = {}
        columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        live = console is not None and console.is_terminal
        self._bars = Bars(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, disable=not live)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def plan(self, plan: Mapping[str, object]) -> None:
        """Print the plan that the minutes were turned into, before any of it is done."""
        if self._console is not None:
            self._console.print(plan_table(plan))

    def say(self, text: str) -> None:
        """One line above the bars."""
        if self._console is not None:
            self._console.print(Text(text))

    def step(self, stage: str, done: int, total: int | None) -> None:
        """`done` of `total` in a stage; total None: not known yet. Equal numbers end the stage's bar."""
        if stage not in self._tasks:
            self._begun[stage] = time.monotonic()
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)
        if done == total and self._console is not None and not self._console.is_terminal:
            self.say(f"{stage}: done in {show.duration(time.monotonic() - self._begun[stage])}")


def result_view(result: Result) -> RenderableType:
    """The ladder, the sentence that sums it up, and each target met or not."""
    lines: list[RenderableType] = [ladder_table(result), Text(show.headline(result))]
    for line in result.targets:
        lines.append(Text(show.outcome(line), style="green" if line.met else "bold red"))
    return Group(*lines)


def ladder_table(result: Result) -> Table:
    """One row a rung, from the original down to all together, each measured in the same run."""
    table = Table(title="Ladder", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("rung", min_width=12, overflow="fold")
    for heading in ("quality", "latency", "faster", "size", "parameters"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("runtime")
    for rung in result.ladder:
        table.add_row(
            show.rung(rung, result),
            show.points(rung.quality),
            show.milliseconds(rung.latency_ms, rung.latency_interval),
            show.faster(rung, result.original),
            show.size(rung.bytes),
            show.count(rung.parameters),
            f"{rung.runtime} {rung.precision}",
        )
    return table


def plan_table(plan: Mapping[str, object]) -> Table:
    """What will be done, as counts."""
    table = Table(title="Plan", title_justify="left", show_header=False, box=SIMPLE_HEAD)
    table.add_column("what")
    table.add_column("how much", justify="right")
    for name, value in plan.items():
        table.add_row(name.replace("_", " "), f"{value:g}" if isinstance(value, float) else str(value))
    return table


def inspect_view(found: Mapping[str, Any]) -> RenderableType:
    """What `inspect` found: axes and branches that can change, then what cannot and why."""
    axes = _table("Can change", ("axis or branch", "kind", "units", "error"))
    verdicts = {verdict["subject"]: verdict for verdict in found.get("certificates", ())}
    for axis in found.get("axes", ()):
        error = verdicts.get(axis["name"], {}).get("error")
        axes.add_row(axis["name"], axis["kind"], str(axis["size"]), _error(error))
    for branch in found.get("branches", ()):
        error = verdicts.get(branch["name"], {}).get("error")
        axes.add_row(branch["name"], f"skip {branch['kind']}", "1", _error(error))
    rejected = [(name, verdict["reason"]) for name, verdict in verdicts.items() if not verdict["accepted"]]
    cannot = [*rejected, *found.get("frozen", {}).items()]
    unknown = [
        (f"operator {name}", f"no rule; met {n} times") for name, n in found.get("unknown_operators", {}).items()
    ]
    return Group(axes, _rows("Cannot change", ("what", "why"), [*cannot, *unknown]))


def trim_view(found: Mapping[str, Any]) -> RenderableType:
    """What `trim` kept: counts before and after, and where the smaller model lies."""
    table = _table("Vocabulary", ("what", "before", "after"))
    table.add_row("tokens", *(f"{n:,}" for n in found["tokens"]))
    table.add_row("parameters", *map(show.count, found["parameters"]))
    table.add_row("weights", *map(show.size, found["bytes"]))
    far = "to the bit" if found["deviation"] == 0 else f"to {found['deviation']:.0e}"
    same = f"same outputs ({far}); all {found['texts']:,} texts are made of the same tokens"
    return Group(table, Text(same), Text(f"model: {found['out']}"))


def front_view(found: Mapping[str, Any]) -> RenderableType:
    """What a search found: the trials that no other beats, and why others failed."""
    objectives = found["objectives"]
    table = _table("Best found", ("trial", *objectives, "architecture"))
    for row in found["front"]:
        choices = ", ".join(f"{name} {value}" for name, value in row["architecture"].items())
        table.add_row(str(row["trial"]), *(f"{row['values'][name]:.6g}" for name in objectives), choices)
    ended = ", ".join(f"{count} {status}" for status, count in found["trials"].items() if count)
    reasons = [Text(f"failed: {reason}") for reason in found["reasons"]]
    return Group(table, Text(f"trials: {ended or 'none'}"), *reasons)


def measure_view(found: Mapping[str, Any]) -> RenderableType:
    """What `measure` found: the costs, then the latency on each runtime."""
    costs = [(name.replace("_", " "), _cost(name, value)) for name, value in found.get("costs", {}).items()]
    rows = []
    for row in found.get("latency", ()):
        interval = (row["low_ms"], row["high_ms"]) if row.get("low_ms") is not None else None
        ms = show.milliseconds(row.get("median_ms"), interval)
        memory = show.NONE if row.get("peak_bytes") is None else show.size(row["peak_bytes"])
        rows.append((row["runtime"], row["precision"], ms, memory, row.get("note", "")))
    return Group(
        _rows("Cost", ("what", "how much"), costs),
        _rows("Latency", ("runtime", "precision", "median", "memory", ""), rows),
    )


def _cost(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return show.size(value) if "bytes" in name else show.count(value)


def _error(value: float | None) -> str:
    return show.NONE if value is None else f"{value:.1e}"


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _rows(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    table = _table(title, headings)
    for row in rows:
        table.add_row(*row)
    return table if table.row_count else Text("")
