"""How a search went: `search.html`, one page with what was tried, what mattered, and why the best was chosen."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import optuna
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial
from plotly.offline import get_plotlyjs

from archsmith.report.plain import write_text
from archsmith.space import Space, Value
from archsmith.trial import Trial, pareto, whole

ENOUGH, MOST = 12, 300  # trials, below which nothing is said of which choices matter, and that are looked at
PERIODS = 3  # of the search, in which values live or die
STYLE = """
body { font: 15px system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #1d1f23 }
table { border-collapse: collapse } td, th { padding: .25rem .8rem; text-align: right } td:first-child, th:first-child
{ text-align: left } tr:nth-child(even) { background: #f3f2ee } .soft { color: #63676f } .other { color: #c2571a }
.part { border: 1px solid #9aa0a8; border-radius: 4px; padding: .15rem .5rem; margin: .2rem; font-size: 13px }
.chain { display: flex; flex-direction: column; align-items: center } .side { display: flex; flex-wrap: wrap;
justify-content: center; align-items: center; border: 1px dashed #c9cdd3; border-radius: 4px; padding: .2rem }"""


def write_searched(
    trials: Sequence[Trial], space: Space, objectives: Sequence[str], out: Path, title: str, drawing: str = ""
) -> Path:
    """Write `out/search.html`; `drawing`: HTML of the best network, where there is one."""
    done = [trial for trial in whole(trials) if trial.status == "complete"]
    best = pareto(done, objectives)
    counts = {name: sum(trial.status == name for trial in trials) for name in ("complete", "failed")}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"
    parts = [f"<h1>{escape(title)}</h1><p class='soft'>Trials: {told}. Values are minimised.</p>"]
    if best:
        parts.append(progress(trials, objectives))
        parts.append(choice_of_best(done, best, objectives[0]))
    if drawing:
        parts.append(f"<h2>The best network</h2>{drawing}")
    weights = importances(done, space, objectives[0])
    if weights:
        parts.append(bars(weights, objectives[0]))
        parts.append(values_by_period(done, space, list(weights), objectives[0]))
    page = [
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>",
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>",
        *parts,
        "</body></html>",
    ]
    return write_text(out / "search.html", "\n".join(page))


def progress(trials: Sequence[Trial], objectives: Sequence[str]) -> str:
    """With one objective the best so far over the trials, with several the first two against each other."""
    done = [trial for trial in trials if trial.status == "complete"]
    names = [f"trial {trial.number}" for trial in done]
    figure = go.Figure()
    if len(objectives) == 1:
        at, values = [trial.number for trial in done], [trial.values[objectives[0]] for trial in done]
        full = {trial.number for trial in whole(done)}
        reached = np.minimum.accumulate([v if n in full else math.inf for n, v in zip(at, values, strict=True)])
        figure.add_scatter(x=at, y=values, mode="markers", name="trials", marker={"color": "#9aa0a8"}, text=names)
        shown = np.where(np.isfinite(reached), reached, np.nan)
        figure.add_scatter(x=at, y=shown, name="best so far", line={"color": "#1f5fbf", "shape": "hv"})
        figure.update_layout(xaxis_title="trial", yaxis_title=objectives[0])
    else:
        first, second = objectives[:2]
        front = sorted(pareto(whole(done), objectives), key=lambda trial: trial.values[first])
        for rows, name, look in ((done, "trials", "markers"), (front, "front", "lines+markers")):
            x, y = ([trial.values[each] for trial in rows] for each in (first, second))
            figure.add_scatter(x=x, y=y, mode=look, name=name, text=[f"trial {trial.number}" for trial in rows])
        figure.update_layout(xaxis_title=first, yaxis_title=second)
    return _drawn(figure, "What was tried")


def choice_of_best(done: Sequence[Trial], front: Sequence[Trial], objective: str) -> str:
    """The best by the first objective beside the runner-up: where they differ, and by how much it is better."""
    order = sorted(done, key=lambda trial: (trial.values[objective], trial.number))
    best, other = order[0], order[1] if len(order) > 1 else None
    mine = best.proposal.architecture
    theirs: Mapping[str, Value] = {} if other is None else other.proposal.architecture
    why = f"Trial {best.number} is the best of {len(done)} by {objective}: {best.values[objective]:.6g}"
    if other is not None:
        gap = other.values[objective] - best.values[objective]
        why += f"; the runner-up, trial {other.number}, has {other.values[objective]:.6g}, which is {gap:.3g} more"
        why += ", too little to tell them apart" if gap == 0 else ""
    if len(front) > 1:
        why += f". {len(front)} trials are beaten by no other in all objectives"
    rows = [
        f"<tr><td>{escape(name)}</td><td>{escape(_shown(mine, name))}</td>"
        f"<td{' class=other' if mine.get(name) != theirs.get(name) else ''}>{escape(_shown(theirs, name))}</td></tr>"
        for name in dict.fromkeys([*mine, *theirs])
    ]
    second = "" if other is None else f"trial {other.number}"
    header = f"<tr><th>choice</th><th>trial {best.number}</th><th>{second}</th></tr>"
    return f"<h2>Why this one</h2><p>{escape(why)}.</p><table>{header}{''.join(rows)}</table>"


def importances(done: Sequence[Trial], space: Space, objective: str) -> dict[str, float]:
    """Choice -> its share of what makes the objective vary (fANOVA, Hutter et al. 2014, as Optuna has it), most first;
    choices that are not active in every trial are left out. Empty where there are too few trials to tell."""
    rows = [trial for trial in done if math.isfinite(trial.values.get(objective, math.nan))]
    rows = rows[:: max(1, -(-len(rows) // MOST))]  # the time that it takes grows with them
    always = [
        name
        for name, choice in space.choices.items()
        if choice.when is None and len(choice.values) > 1 and len({t.proposal.architecture[name] for t in rows}) > 1
    ]
    if len(rows) < ENOUGH or not always or len({trial.values[objective] for trial in rows}) < 2:
        return {}
    if len(always) == 1:
        return {always[0]: 1.0}
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        distributions = {name: CategoricalDistribution(space.choices[name].values) for name in always}
        for trial in rows:
            picked = {name: trial.proposal.architecture[name] for name in always}
            study.add_trial(create_trial(params=picked, distributions=distributions, value=trial.values[objective]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(before)
    return dict(found)


def bars(weights: Mapping[str, float], objective: str) -> str:
    """Importances, most first."""
    names = list(weights)[::-1]
    figure = go.Figure(go.Bar(x=[weights[name] for name in names], y=names, orientation="h", marker_color="#1f5fbf"))
    figure.update_layout(xaxis_title=f"share of what makes {objective} vary (fANOVA)")
    figure.update_layout(height=max(260, 60 + 24 * len(names)))
    return _drawn(figure, "Which choices matter")


def values_by_period(done: Sequence[Trial], space: Space, names: Sequence[str], objective: str) -> str:
    """Of each value: how often it was tried in each part of the search, and the mean and best of its trials."""
    parts = np.array_split(np.arange(len(done)), PERIODS)
    header = "".join(f"<th>{each}</th>" for each in ("value", "first third", "second", "last", "mean", "best"))
    rows: list[str] = []
    for name in names:
        rows.append(f"<tr><th>{escape(name)}</th>{'<th></th>' * 5}</tr>")
        for value in space.choices[name].values:
            tried = [trial.proposal.architecture.get(name) == value for trial in done]
            shares = [np.mean([tried[i] for i in part]) if len(part) else 0.0 for part in parts]
            levels = [trial.values[objective] for trial, has in zip(done, tried, strict=True) if has]
            cells = [f"{share:.0%}".replace("%", " %") for share in shares]
            cells += [f"{np.mean(levels):.5g}", f"{min(levels):.5g}"] if levels else ["never tried", ""]
            died = shares[-1] == 0 and levels
            look = " class='soft'" if died or not levels else ""
            rows.append(f"<tr{look}><td>{escape(str(value))}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    note = "Share of the trials in each third of the search; grey: no longer tried at its end."
    return (
        f"<h2>Which values live and die</h2><p class='soft'>{note}</p><table><tr>{header}</tr>{''.join(rows)}</table>"
    )


def _shown(values: Mapping[str, Value], name: str) -> str:
    return str(values[name]) if name in values else "–"


def _drawn(figure: go.Figure, title: str) -> str:
    figure.update_layout(template="plotly_white", margin={"t": 20})
    drawn: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return f"<h2>{title}</h2>{drawn}"
