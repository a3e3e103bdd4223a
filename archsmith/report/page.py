"""A run's files -> `report.html`, and of a search `search.html`: pages that need no network and nothing beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from archsmith.report import show
from archsmith.report.plain import write_text
from archsmith.report.result import Holdout, Result, Value, Variant
from archsmith.report.story import LatencyPoint, Searched, Story, Width, read_searched

KINDS = {"ffn": "feed-forward", "kv_groups": "KV groups", "residual": "residual width"}


@dataclass(frozen=True)
class Row:
    """One axis of a layer as it is drawn: `best` of `original` units."""

    label: str
    axis: str
    original: int
    best: int


@dataclass(frozen=True)
class Layer:
    """One layer as it is drawn; the nameless one holds what lies in no layer. Dropped: nothing of it is left."""

    name: str
    rows: tuple[Row, ...]
    dropped: bool


def write_page(result: Result, story: Story, run: Path) -> Path:
    """Write `run/report.html`, whole or not at all; it shows `run/search.json`, too, where there is one. Raises
    `BadInput` where that is broken or the disk refuses."""
    return write_text(run / "report.html", render(result, story, read_searched(run)))


def write_search_page(searched: Searched, run: Path) -> Path:
    """Write `run/search.html`, whole or not at all. Raises `BadInput` where the disk refuses."""
    figures = _json({"search": _search_figures(searched)})
    page: str = _environment().get_template("search.html.jinja").render(searched=searched, figures=figures, **_shared())
    return write_text(run / "search.html", page)


def render(result: Result, story: Story, searched: Searched | None = None) -> str:
    """The page as text. Everything that comes from the user's model or data is escaped."""
    layers = draw_layers(story.widths)
    page: str = _template(result).render(
        result=result,
        story=story,
        searched=searched,
        headline=show.headline(result),
        tiles=_tiles(result),
        parts=" and ".join(dict.fromkeys(rung.measured_on for rung in result.ladder)),
        layers=layers,
        kept_layers=sum(not layer.dropped for layer in layers if layer.name),
        line=_number_line(result.holdout) if result.holdout else None,
        latency_error=latency_error(story.latency_points),
        accepted=sum(one.accepted for one in story.certificates),
        rejected=[one for one in story.certificates if not one.accepted],
        longest=max([*result.seconds.values(), 1e-9]),
        # Trials may have gone side by side.
        together=sum(seconds for stage, seconds in result.seconds.items() if stage != "trials"),
        figures=_json(_figures(result, story) | ({"search": _search_figures(searched)} if searched else {})),
        **_shared(),
    )
    return page


def _shared() -> dict[str, Markup]:
    return {"plotly": Markup(get_plotlyjs()), "css": Markup(_text("page.css")), "script": Markup(_text("page.js"))}


def draw_layers(widths: Sequence[Width]) -> tuple[Layer, ...]:
    """Axes by layer, in the order of the network; short names, as far as they stay different.

    >>> widths = [Width(f"bert.layer.{i}.attention.heads", "heads", 12, 6 * i, f"bert.layer.{i}") for i in (0, 1)]
    >>> [(layer.name, layer.dropped, layer.rows[0].label) for layer in draw_layers(widths)]
    [('layer.0', True, 'heads'), ('layer.1', False, 'heads')]
    """
    grouped: dict[str, list[Width]] = {}
    for width in widths:
        grouped.setdefault(width.layer or "", []).append(width)
    named = [name.split(".") for name in grouped if name]
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*named, strict=False))
    shared = max(0, len(list(same)) - 1) if len(named) > 1 else 0
    return tuple(
        Layer(
            name=".".join(name.split(".")[shared:]),
            rows=tuple(_row(width, group) for width in group),
            dropped=bool(name) and all(width.best == 0 for width in group),
        )
        for name, group in grouped.items()
    )


def latency_error(points: Sequence[LatencyPoint]) -> str:
    """How far the latency model was off, in words.

    >>> latency_error([LatencyPoint("a", 1.0, 1.1, "openvino"), LatencyPoint("b", 2.0, 2.0, "openvino")])
    'Over 2 architectures the prediction was off by 4.5 % in the median and 9.1 % at most.'
    """
    if not points:
        return ""
    errors = [abs(point.predicted_ms - point.measured_ms) / point.measured_ms for point in points]
    middle, worst = f"{median(errors):.1%}".replace("%", " %"), f"{max(errors):.1%}".replace("%", " %")
    architectures = len({point.name for point in points})
    return f"Over {architectures} architectures the prediction was off by {middle} in the median and {worst} at most."


def _row(width: Width, group: Sequence[Width]) -> Row:
    alone = sum(other.kind == width.kind for other in group) == 1
    inside = width.name.removeprefix(f"{width.layer}.") if width.layer else width.name
    return Row(KINDS.get(width.kind, width.kind) if alone else inside, width.name, width.original, width.best)


def _tiles(result: Result) -> list[dict[str, str]]:
    best, original = result.best, result.original
    on = "holdout" if result.holdout else best.measured_on
    quality = (result.holdout.best, result.holdout.original) if result.holdout else (best.quality, original.quality)
    pairs = [
        ("Latency", show.milliseconds(best.latency_ms), show.milliseconds(original.latency_ms)),
        (f"{result.metric}, {on}", show.points(quality[0]), show.points(quality[1])),
        ("Size", show.size(best.bytes), show.size(original.bytes)),
        ("Parameters", show.count(best.parameters), show.count(original.parameters)),
    ]
    return [{"name": name, "best": now, "original": f"{show.whole(result)} {was}"} for name, now, was in pairs]


def _number_line(holdout: Holdout) -> dict[str, float]:
    """Places in percent on a line that holds the interval and zero with some room."""
    low, high = min(*holdout.interval, 0.0), max(*holdout.interval, 0.0)
    room = 0.15 * (high - low) or 1.0
    start, span = low - room, high - low + 2 * room

    def at(value: float) -> float:
        return round(100 * (value - start) / span, 2)

    ends = at(holdout.interval[0]), at(holdout.interval[1])
    return {"low": ends[0], "width": round(ends[1] - ends[0], 2), "zero": at(0.0), "middle": at(holdout.difference)}


def _figures(result: Result, story: Story) -> dict[str, Any]:
    series: dict[str, list[LatencyPoint]] = {}
    for point in story.latency_points:
        series.setdefault(f"{point.runtime} {point.precision}", []).append(point)
    front = sorted(result.front, key=lambda one: one.latency_ms or 0.0)
    ladder, original, best = list(result.ladder), [result.original], [result.best]
    parts = {variant.measured_on for variant in front}
    if front and parts != {rung.measured_on for rung in ladder}:  # qualities of two parts are never in one picture
        ladder = []
        original, best = ([v for v in front if v.name == name] for name in ("original", "best"))
    return {
        "metric": f"{result.metric} on {' and '.join(sorted(parts))}" if parts else result.metric,
        "original": [_point(variant) for variant in original],
        "best": [_point(variant) for variant in best],
        "ladder": [_point(rung) for rung in ladder],
        "front": [_point(variant) for variant in front if variant.name not in ("original", "best")],
        "latency": [
            {
                "name": name,
                "predicted": [point.predicted_ms for point in points],
                "measured": [point.measured_ms for point in points],
                "hover": [f"{escape(p.name)}<br>{p.predicted_ms:.2f} → {p.measured_ms:.2f} ms" for p in points],
            }
            for name, points in series.items()
        ],
    }


def _search_figures(searched: Searched) -> dict[str, Any]:
    """Of each trial its objective, and the best so far, that only trials in full count for; with several objectives the
    first two, of all and of the front."""
    reached, best = list[float | None](), None
    for trial in searched.trials:
        value = trial.values[searched.objective]
        best = value if trial.whole and (best is None or value < best) else best
        reached.append(best)
    pair = searched.objectives[:2] if len(searched.objectives) > 1 else ()
    front = [trial for trial in searched.trials if trial.number in searched.front]
    front.sort(key=lambda trial: [trial.values[name] for name in pair])
    return {
        "objective": escape(searched.objective),
        "best": searched.best,
        "number": [trial.number for trial in searched.trials],
        "value": [trial.values[searched.objective] for trial in searched.trials],
        "reached": reached,
        "pair": [escape(name) for name in pair],
        "all": [[trial.values[name] for trial in searched.trials] for name in pair],
        "front": [[trial.values[name] for trial in front] for name in pair],
        "named": [trial.number for trial in front],
    }


def _point(variant: Variant) -> dict[str, Any]:
    facts = [
        f"<b>{escape(variant.name)}</b>",
        f"{show.points(variant.quality)} points, {show.milliseconds(variant.latency_ms)}",
        f"{show.size(variant.bytes)}, {show.count(variant.parameters)} parameters",
        f"{escape(variant.runtime)} {escape(variant.precision)}",
        *_describe(variant.architecture),
    ]
    costs = {name: getattr(variant, name) for name in ("quality", "latency_ms", "macs", "parameters", "bytes")}
    return costs | {"hover": "<br>".join(facts)}


def _describe(architecture: Mapping[str, Value]) -> list[str]:
    """An architecture in the lines that fit beside a pointer."""
    lines = [f"{escape(name)} = {escape(str(value))}" for name, value in architecture.items()]
    return lines if len(lines) <= 18 else [*lines[:17], f"… and {len(lines) - 17} more"]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("archsmith.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "there": lambda value: show.NONE if value is None else value,
        "percent": lambda share: show.NONE if share is None else show.percent(share),
        "short": lambda value: f"{value:.5g}",
        "apart": _apart,
    }
    return environment


def _apart(rows: Iterable[Any], first: int) -> list[list[Any]]:
    """What is shown, and what is behind a click where that is worth one."""
    found = list(rows)
    return [part for part in ((found[:first], found[first:]) if len(found) > first + 2 else (found,)) if part]


def _template(result: Result) -> Any:
    environment = _environment()
    slowest = max([rung.latency_ms or 0.0 for rung in result.ladder] + [1e-9])
    environment.filters |= {
        "points": show.points,
        "change": lambda value: show.points(value, signed=True),
        "milliseconds": show.milliseconds,
        "between": lambda interval: f"{interval[0]:.2f}–{interval[1]:.2f}",
        "size": show.size,
        "count": show.count,
        "duration": show.duration,
        "outcome": show.outcome,
        "called": lambda rung: show.rung(rung, result),
        "whole": show.whole,
        "faster": lambda rung: show.faster(rung, result.original),
        "share": lambda rung: round((rung.latency_ms or 0.0) / slowest, 4),
        "deviation": lambda error: show.NONE if error is None else f"{error:.1e}",
        "words": lambda name: name.replace("_", " "),
    }
    return environment.get_template("page.html.jinja")


def _json(figures: Mapping[str, Any]) -> Markup:
    # "</" inside a script element would end it, whatever the quotes around it.
    return Markup(json.dumps(figures, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
