"""Planning a cut and making it, on a copy that shares what it leaves alone."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.model.anatomy import Anatomy, Axis, Branch, Entry
from archsmith.model.modeling_archsmith import set_value
from archsmith.model.remove import remove
from archsmith.model.share import replace, skeleton, tensors, within
from archsmith.model.stubs import Heads, taking

Positions = Mapping[str, Mapping[int, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is kept of which axis, in this order, and which branches are skipped. Printable; made by `plan`."""

    anatomy: Anatomy
    keep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()

    def __str__(self) -> str:
        lines = [f"skip {branch.kind} {branch.module}" for branch in self.branches]
        lines += [
            f"{axis.name}: {axis.size} -> {len(self.keep[axis.name])} ({axis.kind}, {len(axis.places)} places)"
            for axis in self.axes
        ]
        return "\n".join(lines) or "nothing changes"

    @property
    def axes(self) -> list[Axis]:
        """The axes to be cut, in the anatomy's order, without those that vanish with a skipped branch."""
        gone = {axis for branch in self.branches for axis in branch.axes}
        return [axis for name, axis in self.anatomy.axes.items() if name in self.keep and name not in gone]

    @property
    def branches(self) -> list[Branch]:
        """The branches to be skipped, in the anatomy's order, without those inside a skipped layer."""
        chosen = [branch for name, branch in self.anatomy.branches.items() if name in self.skip]
        layers = [branch.module for branch in chosen if branch.kind == "layer"]
        return [b for b in chosen if not any(within(b.module, layer) and b.module != layer for layer in layers)]


def plan(anatomy: Anatomy, keep: Mapping[str, Sequence[int]], skip: Collection[str] = ()) -> Plan:
    """Check what is to be kept of each axis (unit numbers) and which branches go; `BadInput` where it cannot be."""
    for name, chosen in keep.items():
        if name not in anatomy.axes:
            raise BadInput("an axis must be one that was certified", repr(name), "keep", _nearest(name, anatomy.axes))
        size = anatomy.axes[name].size
        if not len(chosen):
            raise BadInput("an axis must keep at least one unit", "none", name, "skip its branch instead")
        wrong = [unit for unit in chosen if not 0 <= unit < size]
        if wrong:
            raise BadInput(f"units are numbered 0 to {size - 1}", str(wrong[0]), name, "keep units that exist")
        if len(set(chosen)) < len(chosen):
            raise BadInput("a unit is kept once", "a unit that is named twice", name, "name each unit once")
    for name in skip:
        if name not in anatomy.branches:
            raise BadInput(
                "a branch must be one that was certified", repr(name), "skip", _nearest(name, anatomy.branches)
            )
    return Plan(anatomy, {name: tuple(int(u) for u in chosen) for name, chosen in keep.items()}, frozenset(skip))


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}" if close else "see `archsmith inspect` for the names"


def cut(model: nn.Module, plan: Plan, before_removal: Callable[[nn.Module], None] | None = None) -> nn.Module:
    """A smaller copy of the model that the plan's anatomy was found in; untouched tensors share their storage.

    Writing into a shared tensor writes into the model's: `copy.deepcopy` the result before training it.
    `before_removal` sees the copy while its tensors still have the model's names.
    """
    small = skeleton(model)
    put_positions(small, kept_positions(plan, tensors(small)))
    put_entries(small, plan)
    for axis in plan.axes:
        scale_integers(small, axis, len(plan.keep[axis.name]))
    if before_removal is not None:
        before_removal(small)
    remove(small, plan.branches)
    return small


def kept_positions(plan: Plan, old: Mapping[str, Tensor]) -> Positions:
    """parameter -> dimension -> the positions of the old tensor that make up the new one, in order, (kept,) int64.

    Where several axes run through one dimension (heads x width of a head) their cuts intersect.
    """
    source: dict[tuple[str, int], np.ndarray] = {}
    alive: dict[tuple[str, int], np.ndarray] = {}
    for axis in plan.axes:
        keep = np.asarray(plan.keep[axis.name])
        for place in axis.places:
            key = (place.parameter, place.dim)
            everything = np.arange(old[place.parameter].shape[place.dim])
            moved = everything.copy()
            moved[place.index[: len(keep)]] = place.index[keep]
            source[key] = source.get(key, everything)[moved]
            alive.setdefault(key, np.ones(len(everything), dtype=bool))[place.index[len(keep) :]] = False
    kept: dict[str, dict[int, np.ndarray]] = {}
    for (name, dim), positions in source.items():
        kept.setdefault(name, {})[dim] = positions[alive[name, dim]]
    return kept


def put_positions(model: nn.Module, kept: Positions) -> None:
    """Gather the kept positions of every tensor named, put the results in, and set what modules say of shapes."""
    old = tensors(model)
    before = {name: tuple(old[name].shape) for name in kept}
    new: dict[str, Tensor] = {}
    for name, dims in kept.items():
        tensor = old[name].detach()
        for dim, positions in dims.items():
            tensor = tensor.index_select(dim, torch.from_numpy(positions))
        new[name] = tensor
    replace(model, new)
    owners = {id(old[name]): before[name] for name in kept}
    shapes = {id(tensor): owners[id(old[name])] for name, tensor in tensors(model).items() if name in kept}
    for module in model.modules():
        held = {**module._parameters, **module._buffers}
        main = next((held[key] for key in ("weight", "running_mean") if held.get(key) is not None), None)
        if main is not None and id(main) in shapes:
            _fit(module, shapes[id(main)], tuple(main.shape))
        if type(module) is nn.MultiheadAttention and len(set(module.out_proj.weight.shape)) > 1:
            module.__class__ = Heads


def put_entries(model: nn.Module, plan: Plan) -> None:
    """Let modules take, of what they are given from outside, the kept units alone."""
    for axis in plan.axes:
        for entry in axis.entries:
            _take(model.get_submodule(entry.module), entry, axis.size, plan.keep[axis.name])


def _take(module: nn.Module, entry: Entry, units: int, keep: Sequence[int]) -> None:
    """In this order; of what was cut before, a part of what it kept. Outer units come before those within them."""
    here = (entry.argument, entry.dim)
    taken = {(*row[:2], row[3]): row for row in getattr(module, "taken", ())}
    before = taken.get((*here, entry.inner), (*here, units, entry.inner, tuple(range(units))))
    taken[*here, entry.inner] = (*before[:4], tuple(before[4][unit] for unit in keep))
    module.__class__ = taking(type(module))
    module.taken = tuple(sorted(taken.values(), key=lambda row: -row[3]))  # type: ignore[assignment]


# What layers of torch and transformers say about the shape of their weight: attribute -> its dimension.
SHAPE_ATTRIBUTES = {
    "in_features": 1,
    "out_features": 0,
    "num_embeddings": 0,
    "embedding_dim": 1,
    "num_features": 0,
    "num_channels": 0,
    "nx": 0,
    "nf": 1,
}


def _fit(module: nn.Module, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    if isinstance(module, nn.modules.conv._ConvNd):
        if is_depthwise(module):
            module.groups = after[0] * module.groups // before[0]
        _count_channels(module, after)
        return
    if getattr(module, "normalized_shape", None) == before:
        setattr(module, "normalized_shape", after)  # noqa: B010  (mypy takes a module's attribute for a tensor)
    for attribute, dim in SHAPE_ATTRIBUTES.items():
        if len(before) > dim and getattr(module, attribute, None) == before[dim]:
            setattr(module, attribute, after[dim])


def scale_integers(model: nn.Module, axis: Axis, kept: int) -> None:
    """Shrink the whole numbers baked into modules for this axis in proportion to what is kept.

    Raises `ValueError` where nothing of one would be left: it is then not this axis's, or not alone (the heads of a
    group counted as its groups), though a faster form of attention may not ask for it.
    """
    for path, attribute in axis.integers:
        module = model.get_submodule(path)
        left = attrgetter(attribute)(module) * kept // axis.size
        if left < 1:
            raise ValueError(f"{path}.{attribute} would be {left}")
        set_value(module, attribute, left)
        if isinstance(module, nn.modules.conv._ConvNd):
            _count_channels(module, tuple(module.weight.shape))


def is_depthwise(module: nn.Module) -> bool:
    """Is this a convolution whose groups have one input channel each, and go with it?"""
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups == module.in_channels


def _count_channels(convolution: nn.modules.conv._ConvNd, shape: tuple[int, ...]) -> None:
    """Set what a convolution says of the shape of its weight and of its groups."""
    into, out = (0, 1) if convolution.transposed else (1, 0)
    convolution.in_channels = shape[into] * (1 if convolution.transposed else convolution.groups)
    convolution.out_channels = shape[out] * (convolution.groups if convolution.transposed else 1)
