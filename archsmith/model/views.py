"""Sub-networks without copies: sort the units once, then every narrower network is a prefix view of the tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.model.anatomy import Anatomy
from archsmith.model.cut import cut, kept_positions, plan
from archsmith.model.share import tensors


def reorder(model: nn.Module, anatomy: Anatomy, order: Mapping[str, Sequence[int]]) -> nn.Module:
    """A copy that computes the same with the units of these axes in this order (best first, all of them)."""
    for name, units in order.items():
        if name in anatomy.axes and sorted(units) != list(range(anatomy.axes[name].size)):
            raise BadInput(
                "an order names every unit of its axis once", f"{len(units)} units", name, "give a permutation"
            )
    return cut(model, plan(anatomy, order))


def view(
    model: nn.Module, anatomy: Anatomy, widths: Mapping[str, int], skip: Collection[str] = ()
) -> Callable[..., Any]:
    """The sub-network that keeps the first `widths[axis]` units of each axis and skips these branches, as a function.

    It takes the model's arguments and gives its outputs. Nothing is copied; gradients flow into the model's own
    parameters, and a step of an optimiser on them shows in the next call. Equal to `cut` with the same prefixes.
    """
    keep = {name: range(width) for name, width in widths.items()}
    checked = plan(anatomy, keep, skip)
    full = tensors(model)
    shell, sources = _shell(model, checked, full)
    kept = kept_positions(checked, full)
    narrow = {name: [(dim, _runs(p)) for dim, p in dims.items()] for name, dims in kept.items()}

    def call(*args: Any, **kwargs: Any) -> Any:
        state = {name: _narrowed(full[source], narrow.get(source, ())) for name, source in sources.items()}
        return torch.func.functional_call(shell, state, args, kwargs, tie_weights=True)

    return call


def _shell(model: nn.Module, checked: Any, full: Mapping[str, Tensor]) -> tuple[nn.Module, dict[str, str]]:
    """The cut module, and for each of its tensors the name of the model's tensor that it is a part of."""
    origin: dict[int, str] = {}

    def note(small: nn.Module) -> None:
        origin.update({id(tensor): name for name, tensor in tensors(small).items()})

    shell = cut(model, checked, before_removal=note)
    shell.train(model.training)
    return shell, {name: origin[id(tensor)] for name, tensor in tensors(shell).items()}


def _runs(positions: np.ndarray) -> list[tuple[int, int]] | Tensor:
    """Positions as (start, length) of consecutive runs, or as they are where that would be many."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    pieces = np.split(positions, breaks)
    if len(pieces) > 8:
        return torch.from_numpy(positions)
    return [(int(piece[0]), len(piece)) for piece in pieces]


def _narrowed(tensor: Tensor, dims: Collection[tuple[int, list[tuple[int, int]] | Tensor]]) -> Tensor:
    for dim, runs in dims:
        if isinstance(runs, Tensor):
            tensor = tensor.index_select(dim, runs)
        elif len(runs) == 1:
            tensor = tensor.narrow(dim, *runs[0])
        else:
            tensor = torch.cat([tensor.narrow(dim, start, length) for start, length in runs], dim)
    return tensor
