"""How a search went: `search.json`, and `search.html` to look at. A run's report shows it, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from archsmith.report.importance import doubts, importances, lives, varied
from archsmith.report.page import write_search_page
from archsmith.report.plain import write_json
from archsmith.report.story import Difference, Searched, Tried
from archsmith.space import Space
from archsmith.trial import Trial, pareto, whole


def write_searched(
    trials: Sequence[Trial], space: Space, objectives: Sequence[str], out: Path, title: str, drawing: str = ""
) -> Path:
    """Write `out/search.json` and `out/search.html`, and give the latter; `drawing`: HTML of the best network, where
    there is one."""
    searched = told(trials, space, objectives, title, drawing)
    write_json(out / "search.json", searched)
    return write_search_page(searched, out)


def told(trials: Sequence[Trial], space: Space, objectives: Sequence[str], title: str, drawing: str = "") -> Searched:
    """What the trials say."""
    objective = objectives[0]
    complete = [trial for trial in trials if trial.status == "complete"]
    done = [trial for trial in whole(trials) if trial.status == "complete"]
    full = {trial.number for trial in done}
    counts = {name: sum(trial.status == name for trial in trials) for name in ("complete", "failed")}
    order = sorted(done, key=lambda trial: (trial.values[objective], trial.number))
    front = pareto(done, objectives)
    best, other = [*order, None, None][:2]
    weights, names = importances(done, space, objective), varied(done, space)
    return Searched(
        title=title,
        objective=objective,
        objectives=tuple(objectives),
        counts={name: count for name, count in counts.items() if count},
        trials=tuple(
            Tried(trial.number, {name: trial.values[name] for name in objectives}, trial.number in full)
            for trial in complete
        ),
        front=tuple(trial.number for trial in front),
        best=best.number if best else None,
        other=other.number if other else None,
        why=why(best, other, len(done), objective) if best else "",
        differences=differences(best, other) if best else (),
        importances=weights,
        lives=lives(done, space, list(dict.fromkeys([*weights, *names])), objective),
        doubts=doubts(len(done), len(names)) if names else ("", ""),
        drawing=drawing,
    )


def why(best: Trial, other: Trial | None, count: int, objective: str) -> str:
    """Why the best of so many is the best, and by how much it is better than the runner-up."""
    said = f"Trial {best.number} is the best of {count} by {objective}: {best.values[objective]:.6g}"
    if other is None:
        return said
    gap = other.values[objective] - best.values[objective]
    said += f"; the runner-up, trial {other.number}, has {other.values[objective]:.6g}, which is {gap:.3g} more"
    return said + (", too little to tell them apart" if gap == 0 else "")


def differences(best: Trial, other: Trial | None) -> tuple[Difference, ...]:
    """Choice by choice, the best beside the runner-up."""
    rows = [{name: str(value) for name, value in t.proposal.architecture.items()} for t in (best, other) if t]
    return tuple(
        Difference(name, rows[0].get(name), rows[-1].get(name)) for name in dict.fromkeys(n for r in rows for n in r)
    )
