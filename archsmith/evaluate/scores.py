"""Block scores: how far the outputs move when one choice of a space takes one value and all else stays whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.space import Choice, Space, Value
from archsmith.tasks.task import Task

Build = Callable[[Mapping[str, Value]], nn.Module]
Scores = dict[str, dict[Value, float]]


def score_blocks(
    build: Build,
    task: Task,
    space: Space,
    rows: Sequence[int],
    *,
    probes: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Choice -> value -> mean divergence from the whole network's outputs on train rows; 0 for the whole value.

    `build` makes the wrapped network of what differs from the whole one. Of a choice with many values `probes` are
    measured, spread over them with the smallest among them, and the others interpolated; a smaller width never scores
    better than a larger one.
    """
    batches = _batches(task, rows)
    with torch.no_grad():
        whole = build({}).eval()
        wanted = [whole(**inputs) for inputs in batches]
    asked = {name: _measured(choice, probes) for name, choice in space.choices.items()}
    total, done = sum(len(values) for values in asked.values()), 0
    scores: Scores = {}
    for name, choice in space.choices.items():
        found: dict[Value, float] = {max(choice.values, key=float): 0.0}
        for value in asked[name]:
            found[value] = _distance(build({name: value}).eval(), task, batches, wanted)
            done += 1
            if progress:
                progress(done, total)
        scores[name] = _filled(choice, found)
    return scores


def _batches(task: Task, rows: Sequence[int], size: int = 32) -> list[dict[str, Tensor]]:
    order = sorted(rows, key=lambda row: int(task.lengths("train")[row]))
    return [task.inputs("train", order[begin : begin + size]) for begin in range(0, len(order), size)]


def _distance(
    module: nn.Module, task: Task, batches: Sequence[Mapping[str, Tensor]], wanted: Sequence[Tensor]
) -> float:
    with torch.no_grad():
        apart = [float(task.divergence(module(**inputs), goal)) for inputs, goal in zip(batches, wanted, strict=True)]
    return float(np.average(apart, weights=[len(goal) for goal in wanted]))


def _measured(choice: Choice, probes: int) -> list[Value]:
    """The values to measure: all below the whole one, or `probes` of them, the smallest among them."""
    below = sorted(choice.values, key=float, reverse=True)[1:]
    if len(below) <= probes:
        return below
    at = np.unique(np.linspace(0, len(below) - 1, probes + 1).round().astype(int))[1:]
    return [below[index] for index in at]


def _filled(choice: Choice, found: Mapping[Value, float]) -> dict[Value, float]:
    known = sorted(found, key=float)
    rising = np.maximum.accumulate([found[value] for value in known][::-1])[::-1]
    at = np.interp([float(v) for v in choice.values], [float(v) for v in known], rising)
    return {value: float(score) for value, score in zip(choice.values, at, strict=True)}
