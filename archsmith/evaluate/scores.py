"""Block scores: how far the outputs move when one choice of a space takes one value and all else stays whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.evaluate.blocks import layer_paths, moved
from archsmith.model import Anatomy
from archsmith.model.relay import Given, handed_on, relayed, run_until
from archsmith.model.share import within
from archsmith.model.wide import computed_wide
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
    anatomy: Anatomy | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Choice -> value -> mean divergence from the whole network's outputs on train rows; 0 for the whole value.

    `build` makes the wrapped network of what differs from the whole one. Of a choice with many values `probes` are
    measured, spread over them with the smallest among them, and the others interpolated; a smaller width never scores
    better than a larger one. With the `anatomy` that the space is of, what runs before the layer in question is run
    once for all of them.
    """
    batches = _batches(task, rows)
    whole = build({}).eval()
    with torch.no_grad(), computed_wide(whole):
        wanted = [whole(**inputs) for inputs in batches]
    before = _Before(whole, anatomy, batches) if anatomy is not None else None
    asked = {name: _measured(choice, probes) for name, choice in space.choices.items()}
    total, done = sum(len(values) for values in asked.values()), 0
    scores: Scores = {}
    for name, choice in space.choices.items():
        found: dict[Value, float] = {max(choice.values, key=float): 0.0}
        for value in asked[name]:
            module = build({name: value}).eval()
            given = before.of(module, {name: value}) if before is not None else [Given() for _ in batches]
            found[value] = _distance(module, task, batches, wanted, given)
            done += 1
            if progress:
                progress(done, total)
        scores[name] = _filled(choice, found)
    return scores


def _batches(task: Task, rows: Sequence[int], size: int = 32) -> list[dict[str, Tensor]]:
    order = sorted(rows, key=lambda row: int(task.lengths("train")[row]))
    return [task.inputs("train", order[begin : begin + size]) for begin in range(0, len(order), size)]


class _Before:
    """What the layers of the whole network give: those before a changed layer give the same in the changed network."""

    def __init__(self, whole: nn.Module, anatomy: Anatomy, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self.anatomy = anatomy
        self.prefix = _prefix(whole, layer_paths(anatomy))
        paths = {whole.get_submodule(self.prefix + path): path for path in layer_paths(anatomy)}
        self.order = [paths[layer] for layer in relayed(whole, batches, paths)] if paths and batches else []
        layers = {path: whole.get_submodule(self.prefix + path) for path in self.order}
        runs = [run_until(whole, inputs, layers.values()) for inputs in batches]
        self.given = [{path: run[layer] for path, layer in layers.items()} for run in runs]

    def of(self, module: nn.Module, change: Mapping[str, Value]) -> list[Given]:
        """For each batch, what the layers of a changed network give that lie before the change."""
        place = self._place(next(iter(change)))
        inside = [path for path in self.order if within(path, place) or within(place, path)] if place else []
        earlier = self.order[: self.order.index(inside[0])] if inside else []
        news = {path: moved(self.anatomy, change, path) for path in earlier}
        found = [Given() for _ in self.given]
        for path, new in news.items():
            layer = module.get_submodule(self.prefix + new) if new is not None else None
            for given, known in zip(found, self.given, strict=True):
                given |= {layer: known[path]} if layer is not None else {}
        return found

    def _place(self, name: str) -> str:
        """The list entry in which all that a choice changes lies; empty where there is none."""
        if name in self.anatomy.branches:
            branch = self.anatomy.branches[name]
            return branch.module if branch.kind == "layer" else branch.layer or ""
        axis = self.anatomy.axes[name]
        place = axis.layer or ""
        return place if all(within(path, place) for path, _ in axis.integers) else ""


def _prefix(whole: nn.Module, paths: Sequence[str]) -> str:
    """What comes before the paths of the model within its wrapper, which holds it somewhere."""
    names = {name for name, _ in whole.named_modules()}
    ends = [name for name in names if paths and (name == paths[0] or name.endswith(f".{paths[0]}"))]
    found = [name.removesuffix(paths[0]) for name in ends]
    return min((prefix for prefix in found if all(prefix + path in names for path in paths)), key=len, default="")


def _distance(
    module: nn.Module,
    task: Task,
    batches: Sequence[Mapping[str, Tensor]],
    wanted: Sequence[Tensor],
    before: Sequence[Given],
) -> float:
    apart = []
    for inputs, goal, given in zip(batches, wanted, before, strict=True):
        with torch.no_grad(), computed_wide(module), handed_on(given):
            apart.append(float(task.apart(module(**inputs), goal)))
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
