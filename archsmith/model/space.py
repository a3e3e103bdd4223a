"""From an anatomy to a space of architectures, and from an architecture back to a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from archsmith.model.anatomy import Anatomy, Axis
from archsmith.model.cut import cut, plan
from archsmith.space import Choice, Condition, Space


def derive_space(anatomy: Anatomy, values: int = 12) -> Space:
    """One choice for every branch (kept or not) and every axis (units kept, at most `values` counts, descending).

    A block is chosen only where its layer is kept, an axis only where its block is.
    """
    choices: dict[str, Choice] = {}
    for branch in anatomy.branches.values():
        inside = branch.layer if branch.layer in anatomy.branches and branch.layer != branch.name else None
        choices[branch.name] = Choice((True, False), Condition(inside, (True,)) if inside else None)
    for axis in anatomy.axes.values():
        holder = holder_of(anatomy, axis)
        choices[axis.name] = Choice(counts(axis, values), Condition(holder, (True,)) if holder else None)
    return Space(choices)


def holder_of(anatomy: Anatomy, axis: Axis) -> str | None:
    """The innermost branch that an axis vanishes with."""
    holders = [branch for branch in anatomy.branches.values() if axis.name in branch.axes]
    holders.sort(key=lambda branch: (branch.kind == "layer", -len(branch.module)))
    return holders[0].name if holders else None


def counts(axis: Axis, values: int) -> tuple[int, ...]:
    """Unit counts worth choosing between, largest first: even steps, round numbers where a kernel likes them.

    >>> counts(Axis("ffn", "ffn", 1536, ()), 12)[:3], counts(Axis("residual", "residual", 384, ()), 12)[-3:]
    ((1536, 1408, 1280), (96, 64, 32))
    >>> counts(Axis("heads", "heads", 12, ()), 4)
    (12, 9, 6, 3)
    """
    step = max(1, -(-axis.size // values))
    grain = next((g for g in ((32, 16, 8) if axis.kind == "residual" else (16, 8)) if axis.size >= 4 * g), 1)
    if step > 1:
        step = -(-step // grain) * grain
    return tuple(n for n in range(axis.size, 0, -step) if n > 0)


def realise(model: nn.Module, anatomy: Anatomy, architecture: Mapping[str, Any]) -> nn.Module:
    """The module of an architecture: the first units of every axis are kept, so `reorder` the model first.

    Names that are missing mean full. Tensors that stay whole share their storage with `model`.
    """
    keep = {n: range(int(count)) for n, count in architecture.items() if n in anatomy.axes}
    skip = [n for n, kept in architecture.items() if n in anatomy.branches and not kept]
    unknown = {n: [0] for n in architecture if n not in anatomy.axes and n not in anatomy.branches}
    keep = {n: units for n, units in keep.items() if len(units) < anatomy.axes[n].size}
    return cut(model, plan(anatomy, {**keep, **unknown}, skip))
