"""Which units of an axis matter: the outputs' sensitivity to each, on calibration data.

The importance of unit u is the empirical Fisher information of a mask m_u on it (Molchanov et al. 2019, eq. 8;
Theis et al. 2018): the square of dL/dm_u = sum of (parameter x gradient) over the unit's positions, summed over the
unit's places and averaged over batches. L compares the outputs with themselves plus noise, by the task's own
divergence, so no labels are needed and any task is served.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.model import Anatomy, Axis
from archsmith.model.wide import computed_wide
from archsmith.tasks.task import Task

BATCH = 8  # gradients are squared a batch at a time: small batches, sharper ranks


def rank_units(
    model: nn.Module, anatomy: Anatomy, task: Task, rng: np.random.Generator, rows: int = 384
) -> dict[str, np.ndarray]:
    """Importance of every unit of every axis: axis name -> (units,) float64, larger matters more.

    `rows` train rows are drawn by `rng`. The model is left as it was, without gradients.
    """
    modes = {module: module.training for module in model.modules()}
    drawn = rng.permutation(task.size("train"))[:rows]
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    importance = {name: np.zeros(axis.size) for name, axis in anatomy.axes.items()}
    places = _places(anatomy, dict(model.named_parameters()))
    asked = {p: p.requires_grad for p in model.parameters()}
    if not places:
        return importance

    def feel(parameter: Tensor) -> None:
        """A gradient is used when it arrives: all of them together would take as much memory as the model."""
        for name, dim, index in places[parameter]:
            importance[name] += _felt(parameter, dim, index)
        parameter.grad = None

    for p in asked:
        p.requires_grad_(p in places)
    hooks = [p.register_post_accumulate_grad_hook(feel) for p in places]  # type: ignore[no-untyped-call]
    wrapped = task.wrap(model).eval()
    try:
        for begin in range(0, len(drawn), BATCH):
            with computed_wide(model):
                outputs: Tensor = wrapped(**task.inputs("train", [int(row) for row in drawn[begin : begin + BATCH]]))
                scale = outputs.detach().std() + 1e-6
                noisy = outputs.detach() + scale * torch.randn(outputs.shape, generator=generator)
                task.divergence(outputs, noisy).backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
        for p, before in asked.items():
            p.requires_grad_(before)
        for module, training in modes.items():
            module.training = training
    return importance


def order_units(importance: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Units of each axis from the most to the least important, so that every smaller width is a prefix."""
    return {name: [int(unit) for unit in np.argsort(-scores, kind="stable")] for name, scores in importance.items()}


def _places(anatomy: Anatomy, parameters: Mapping[str, nn.Parameter]) -> dict[Tensor, list[tuple[str, int, Tensor]]]:
    """Parameter -> (axis, dimension, positions) where its gradient speaks for the units: those places that read them
    (dimension 1 of a matrix), or norms, else all."""
    found: dict[Tensor, list[tuple[str, int, Tensor]]] = {}
    for name, axis in anatomy.axes.items():
        held = [place for place in axis.places if place.parameter in parameters]
        reading = [place for place in held if _reads(axis, parameters[place.parameter], place.dim)]
        for place in reading or held:
            row = (name, place.dim, torch.from_numpy(place.index))
            found.setdefault(parameters[place.parameter], []).append(row)
    return found


def _reads(axis: Axis, parameter: Tensor, dim: int) -> bool:
    return parameter.dim() == 1 if axis.kind == "residual" else parameter.dim() > 1 and dim == 1


def _felt(parameter: Tensor, dim: int, index_UP: Tensor) -> np.ndarray:
    """(units,): the squared derivative by a mask on each unit at one place."""
    if parameter.grad is None:
        return np.zeros(index_UP.shape[0])
    others = [d for d in range(parameter.dim()) if d != dim]
    felt = (parameter.detach() * parameter.grad).sum(others) if others else parameter.detach() * parameter.grad
    return np.asarray(felt[index_UP].sum(1).square().double().numpy())
