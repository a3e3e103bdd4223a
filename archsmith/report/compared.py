"""What `bench` leaves to read: a Markdown table, and one page with the curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from scipy.stats import rankdata

from archsmith.report.plain import write_text

COLOURS = ("#1f5fbf", "#c2571a", "#2e8b57", "#8a3ffc", "#b0306a", "#7a6a00", "#008b8b", "#63676f", "#d1495b", "#3d5a80")
BAND = 1.96  # standard errors: where the mean lies in 95 of 100 cases
STYLE = """
body { font: 15px system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1d1f23 }
table { border-collapse: collapse } td, th { padding: .25rem .8rem; text-align: right } td:first-child, th:first-child
{ text-align: left } tr:nth-child(even) { background: #f3f2ee } .soft { color: #63676f }"""


@dataclass(frozen=True, eq=False)
class Curves:
    """One strategy on one benchmark. `regret` (seeds, evaluations): the best value so far above the best there is, or
    with several objectives the hypervolume that is missed, in per cent, which `measure` says; NaN before the first.
    `test`: another value of the same architecture; `seconds`: of a proposal."""

    benchmark: str
    strategy: str
    objective: str
    regret: np.ndarray
    test: np.ndarray
    seconds: float
    measure: str = "regret"

    def told(self) -> str:
        """Mean and standard error at the end."""
        mean, error = middle(self.regret[:, -1])
        seeds, evaluations = self.regret.shape
        return f"{self.measure} {mean:.3f} ± {error:.3f} after {evaluations} evaluations, {seeds} seeds"


def middle(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error, of what is finite; NaN where nothing is, an error of 0 where there is one."""
    there = values[np.isfinite(values)]
    if not len(there):
        return float("nan"), float("nan")
    return float(there.mean()), float(there.std(ddof=1) / len(there) ** 0.5) if len(there) > 1 else 0.0


def mean_ranks(found: Sequence[Curves]) -> dict[str, float]:
    """Strategy -> mean place over benchmarks by the last mean regret, 1 the best; ties share a place. While a
    comparison runs a benchmark counts once all strategies have been there."""
    places: dict[str, list[float]] = {}
    strategies = len({each.strategy for each in found})
    for benchmark in dict.fromkeys(each.benchmark for each in found):
        rows = [each for each in found if each.benchmark == benchmark]
        if len(rows) < strategies:
            continue
        lost = [np.nan_to_num(middle(row.regret[:, -1])[0], nan=np.inf) for row in rows]
        for each, place in zip(rows, rankdata(lost), strict=True):
            places.setdefault(each.strategy, []).append(float(place))
    return {name: float(np.mean(row)) for name, row in places.items()}


def table(found: Sequence[Curves]) -> list[list[str]]:
    """Header and rows: strategies by mean rank, one column of regret (and one of test) a benchmark."""
    ranks = mean_ranks(found)
    benchmarks = list(dict.fromkeys(each.benchmark for each in found))
    by = {(each.strategy, each.benchmark): each for each in found}

    def cell(name: str, benchmark: str, part: str) -> str:
        curves = by.get((name, benchmark))  # while the comparison runs, some are not there yet
        return "{:.3f} ± {:.3f}".format(*middle(getattr(curves, part)[:, -1])) if curves else "–"

    tested = [name for name in benchmarks if any(np.isfinite(e.test).any() for e in found if e.benchmark == name)]
    header = [
        "strategy",
        "mean rank",
        *(f"{b}: {found[0].measure}" for b in benchmarks),
        *(f"{b}: test" for b in tested),
        "ms a proposal",
    ]
    rows = [header]
    for name in sorted(ranks, key=ranks.__getitem__):
        row = [name, f"{ranks[name]:.2f}"]
        row += [cell(name, b, "regret") for b in benchmarks] + [cell(name, b, "test") for b in tested]
        rows.append([*row, f"{1e3 * np.mean([each.seconds for each in found if each.strategy == name]):.2f}"])
    return rows


def write_compared(found: Sequence[Curves], folder: Path) -> None:
    """`table.md` and `bench.html` in the folder."""
    rows = table(found)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    note = (
        f"Mean ± standard error over {len(found[0].regret)} seeds, after {found[0].regret.shape[1]} whole evaluations."
    )
    write_text(folder / "table.md", "\n".join([*lines, "", note, ""]))
    cells = [
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for row, tag in zip(rows, ["th", *["td"] * len(rows)], strict=False)
    ]
    charts = [chart(found, name) for name in dict.fromkeys(each.benchmark for each in found)]
    page = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Search strategies compared</title>",
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body><h1>Search strategies compared</h1>",
        "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + f"</table><p class='soft'>{escape(note)}</p>",
        *charts,
        "</body></html>",
    ]
    write_text(folder / "bench.html", "\n".join(page))


def chart(found: Sequence[Curves], benchmark: str) -> str:
    """Mean regret (or hypervolume missed) by evaluations, with a band in which the mean lies."""
    figure = go.Figure()
    for number, each in enumerate(each for each in found if each.benchmark == benchmark):
        colour = COLOURS[number % len(COLOURS)]
        told = [middle(column) for column in each.regret.T]
        mean, error = (np.array(row) for row in zip(*told, strict=True))
        at = np.arange(1, len(mean) + 1)
        low, high = np.maximum(mean - BAND * error, 1e-3), mean + BAND * error
        figure.add_scatter(
            x=[*at, *at[::-1]], y=[*high, *low[::-1]], fill="toself", fillcolor=colour, opacity=0.15, line={"width": 0},
            hoverinfo="skip", showlegend=False, legendgroup=each.strategy,
        )  # fmt: skip
        figure.add_scatter(
            x=at, y=np.maximum(mean, 1e-3), name=each.strategy, line={"color": colour}, legendgroup=each.strategy
        )
    figure.update_layout(
        title=f"{benchmark}: mean {found[0].measure} so far (lower is better), with its 95 % band",
        xaxis_title="whole evaluations", yaxis_title=found[0].measure, yaxis_type="log", template="plotly_white",
        height=480,
    )  # fmt: skip
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return drawn
