"""How a search went: `search.json`, and `search.html` to look at. A run's report shows it, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archsmith.report.importance import doubts, importances, lives, varied
from archsmith.report.page import write_search_page
from archsmith.report.plain import write_json
from archsmith.report.story import Difference, Searched, Tried
from archsmith.space import Architecture, Space
from archsmith.trial import Trial, pareto, whole

MEANING = {"loss_points": "points lost on validation", "rank_points": "0 for the best by scores without training"}


@dataclass(frozen=True)
class Chosen:
    """The network that is handed over: `by` which value it is the best, and HTML that draws it."""

    architecture: Architecture
    by: str
    drawing: str


def write_searched(
    trials: Sequence[Trial],
    space: Space,
    objectives: Sequence[str],
    out: Path,
    title: str,
    chosen: Chosen | None = None,
) -> Path:
    """Write `out/search.json` and `out/search.html`, and give the latter. Without `chosen` the best is the best by the
    first objective."""
    searched = told(trials, space, objectives, title, chosen)
    write_json(out / "search.json", searched)
    return write_search_page(searched, out)


def told(
    trials: Sequence[Trial], space: Space, objectives: Sequence[str], title: str, chosen: Chosen | None = None
) -> Searched:
    """What the trials say."""
    objective = chosen.by if chosen else objectives[0]
    shown = dict.fromkeys([*objectives, objective])
    ended = [trial for trial in trials if trial.status == "complete"]
    complete = [trial for trial in ended if math.isfinite(trial.values.get(objective, math.nan))]
    done = whole(complete)
    full = {trial.number for trial in done}
    counts = {name: sum(trial.status == name for trial in trials) for name in ("complete", "failed")}
    # Of several trials of what was chosen the best; another may have ended after it was chosen, and be better.
    order = sorted(done, key=lambda trial: (trial.values[objective], trial.number))
    order.sort(key=lambda trial: chosen is not None and trial.proposal.architecture != chosen.architecture)
    best, other = [*order, None, None][:2]
    weights, names = importances(done, space, objective), varied(done, space)
    return Searched(
        title=title,
        objective=objective,
        objectives=tuple(objectives),
        counts={name: count for name, count in counts.items() if count},
        trials=tuple(
            Tried(trial.number, {name: trial.values[name] for name in shown}, trial.number in full)
            for trial in complete
        ),
        front=tuple(trial.number for trial in pareto(done, objectives)),
        best=best.number if best else None,
        other=other.number if other else None,
        why=why(best, other, len(done), objective, MEANING.get(objective, "") if chosen else "") if best else "",
        differences=differences(best, other) if best else (),
        importances=weights,
        lives=lives(done, space, list(dict.fromkeys([*weights, *names])), objective),
        doubts=doubts(len(done), len(names)) if names else ("", ""),
        drawing=chosen.drawing if chosen else "",
    )


def why(best: Trial, other: Trial | None, count: int, objective: str, meaning: str = "") -> str:
    """Why the best of so many is the best, and by how much it is better than the runner-up."""
    by = f"{objective} ({meaning})" if meaning else objective
    said = f"Trial {best.number} is the best of {count} by {by}: {best.values[objective]:.6g}"
    if other is None:
        return said
    gap = other.values[objective] - best.values[objective]
    if gap < 0:
        return f"{said}; trial {other.number}, with {other.values[objective]:.6g}, ended after it was chosen"
    said += f"; the runner-up, trial {other.number}, has {other.values[objective]:.6g}, which is {gap:.3g} more"
    return said + (", too little to tell them apart" if gap == 0 else "")


def differences(best: Trial, other: Trial | None) -> tuple[Difference, ...]:
    """Choice by choice, the best beside the runner-up."""
    rows = [{name: str(value) for name, value in t.proposal.architecture.items()} for t in (best, other) if t]
    return tuple(
        Difference(name, rows[0].get(name), rows[-1].get(name)) for name in dict.fromkeys(n for r in rows for n in r)
    )
