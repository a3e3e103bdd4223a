"""The plain reference of a cut, written without the code under test: the full model with unkept positions at zero."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.model import Anatomy, cut, plan
from archsmith.model.running import deviation, run


def halves(anatomy: Anatomy, rng: np.random.Generator, kinds: tuple[str, ...]) -> dict[str, list[int]]:
    """A random half of the units of every axis of these kinds."""
    return {
        name: sorted(map(int, rng.choice(axis.size, max(1, axis.size // 2), replace=False)))
        for name, axis in anatomy.axes.items()
        if axis.kind in kinds
    }


def masked(model: nn.Module, anatomy: Anatomy, keep: Mapping[str, list[int]]) -> nn.Module:
    """A copy of the model in which every position of an unkept unit is zero."""
    twin = copy.deepcopy(model)
    held = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    with torch.no_grad():
        for name, kept in keep.items():
            axis = anatomy.axes[name]
            gone = [unit for unit in range(axis.size) if unit not in kept]
            for place in axis.places:
                tensor = held[place.parameter].movedim(place.dim, 0)
                tensor[place.index[gone].ravel()] = 0
    return twin


def cut_equals_masked(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    anatomy: Anatomy,
    rng: np.random.Generator,
    kinds: tuple[str, ...] = ("heads", "kv_groups", "ffn", "channels", "residual", "width"),
) -> float:
    """Deviation of a random cut of all axes of these kinds at once from the masked model; a mask changes something."""
    keep = halves(anatomy, rng, kinds)
    small = cut(model, plan(anatomy, keep))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    reference = run(masked(model, anatomy, keep), inputs)
    assert deviation(reference, run(model, inputs)) > 1e-6
    return deviation(run(small, inputs), reference)
