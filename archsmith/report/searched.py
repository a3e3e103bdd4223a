"""How a search went: `search.json`, and `search.html` to look at. A run's report shows it, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from archsmith.report.importance import doubts, importances, lives, varied
from archsmith.report.page import write_search_page
from archsmith.report.plain import write_json
from archsmith.report.story import Difference, Searched, Tried
from archsmith.space import Architecture, Space
from archsmith.study.loop import is_stuck
from archsmith.trial import Trial, pareto, whole

MEANING = {
    "loss_points": "points lost on validation",
    "rank_points": "100 less the share of random networks that its scores beat, below 0 beyond them all",
}


@dataclass(frozen=True)
class Chosen:
    """The network that is handed over: `by` which value it is the best, and HTML that draws it."""

    architecture: Architecture
    by: str
    drawing: str


@dataclass(frozen=True)
class Aim:
    """What a search was to do: so many `trials` at most, and none once `patience` in a row have brought nothing new."""

    title: str
    objectives: tuple[str, ...]
    trials: int | None = None
    patience: int | None = None


def write_searched(trials: Sequence[Trial], space: Space, out: Path, aim: Aim, chosen: Chosen | None = None) -> Path:
    """Write `out/search.json` and `out/search.html`, and give the latter. Without `chosen` the best is the best by the
    first objective."""
    searched = told(trials, space, aim, chosen)
    write_json(out / "search.json", searched)
    return write_search_page(searched, out)


def told(trials: Sequence[Trial], space: Space, aim: Aim, chosen: Chosen | None = None) -> Searched:
    """What the trials say."""
    objective = chosen.by if chosen else aim.objectives[0]
    shown = dict.fromkeys([*aim.objectives, objective])
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
        title=aim.title,
        objective=objective,
        objectives=aim.objectives,
        counts={name: count for name, count in counts.items() if count},
        trials=tuple(
            Tried(trial.number, {name: trial.values[name] for name in shown}, trial.number in full)
            for trial in complete
        ),
        front=tuple(trial.number for trial in pareto(done, aim.objectives)),
        best=best.number if best else None,
        other=other.number if other else None,
        course=" ".join(filter(None, (course(done, best, objective, aim), stopped(trials, aim)))) if best else "",
        why=why(best, other, len(done), objective, MEANING.get(objective, "") if chosen else "") if best else "",
        differences=differences(best, other) if best else (),
        importances=weights,
        lives=lives(done, space, list(dict.fromkeys([*weights, *names])), objective),
        doubts=doubts(len(done), len(names)) if names else ("", ""),
        drawing=chosen.drawing if chosen else "",
    )


def course(done: Sequence[Trial], best: Trial, objective: str, aim: Aim) -> str:
    """When the best came, and whether what came after it was any better; empty where something was."""
    rest = [trial for trial in done if trial.number > best.number]
    if any(trial.values[objective] < best.values[objective] for trial in rest):
        return ""
    lowest = np.minimum.accumulate([trial.values[objective] for trial in done])
    better = len(set(lowest[: len(done) - len(rest)].tolist())) - 1
    improved = f"after {better} improvement{'s' if better > 1 else ''}"
    if len(done) == 1:
        said = f"One trial ended well, trial {best.number}: there was nothing to choose from."
    elif not better:
        first = f"the first, trial {best.number}"
        said = f"No improvement within the budget: of {len(done)} trials none was better than {first}."
    elif not rest:
        said = f"The best came last, with trial {best.number}, {improved}: more trials might bring more."
    else:
        none = f"none of the {len(rest)} after it was better" if len(rest) > 1 else "the one after it was no better"
        said = f"The best came with trial {best.number}, {improved}; {none}."
    return f"By {objective}: {said[0].lower()}{said[1:]}" if len(aim.objectives) > 1 else said


def stopped(trials: Sequence[Trial], aim: Aim) -> str:
    """Why there are fewer trials than were asked for; empty where there are as many."""
    count = sum(trial.status in ("complete", "failed") for trial in trials)
    if aim.trials is None or count >= aim.trials:
        return ""
    said = f"{count} of {aim.trials} trials were tried"
    if aim.patience is not None and is_stuck(trials, aim.objectives, aim.patience):
        return f"{said}: the search stopped when {aim.patience} in a row had brought nothing better (--patience)."
    return f"{said} before the time was over or nothing new was left to try."


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
