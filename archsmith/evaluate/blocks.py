"""Which blocks an architecture keeps, and how wide: what a latency model is asked with.

Blocks built alike form a group. Alike are axes and layers whose names differ in list indices only:
`encoder.layer.0.ffn` and `encoder.layer.5.ffn` are both of group `encoder.layer.*.ffn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from archsmith.model.anatomy import Anatomy, Axis
from archsmith.model.share import within
from archsmith.space import Value

HEADS = ("heads", "kv_groups")


@dataclass(frozen=True)
class Blocks:
    """Group -> width (units) of each kept block, and the residual width as a share of the original's."""

    widths: Mapping[str, tuple[float, ...]]
    residual: float


def blocks(anatomy: Anatomy, architecture: Mapping[str, Value]) -> Blocks:
    """The blocks that `architecture` keeps; a name that it does not have is at full width, a branch at False is gone.

    A layer is a block of width 1 in its own group: it holds what norms and skipped branches still cost. The width of
    the heads is a factor of their number, since every product in an attention block has heads times width columns.
    """
    gone = skipped(anatomy, architecture)
    factors = factors_of(anatomy)
    inner = {name for names in factors.values() for name in names}
    widths: dict[str, list[float]] = {}
    residual = []

    def share(name: str) -> float:
        return float(architecture.get(name, anatomy.axes[name].size)) / anatomy.axes[name].size

    for name, axis in anatomy.axes.items():
        if axis.kind == "residual":
            residual.append(share(name))
        elif name not in gone and name not in inner:
            shares = [share(factor) for factor in factors.get(name, ())] or [1.0]
            width = share(name) * axis.size * sum(shares) / len(shares)
            widths.setdefault(group_of(anatomy, axis), []).append(width)
    for name, branch in anatomy.branches.items():
        if (branch.kind == "layer" or not branch.axes) and name not in gone:
            widths.setdefault(pattern(name), []).append(1.0)
    mean = sum(residual) / len(residual) if residual else 1.0
    return Blocks({group: tuple(row) for group, row in widths.items()}, mean)


def factors_of(anatomy: Anatomy) -> dict[str, tuple[str, ...]]:
    """Heads axis -> the axes of the width of its heads (query and key, value)."""
    factors: dict[str, tuple[str, ...]] = {}
    for branch in anatomy.branches.values():
        if branch.kind == "attention":
            heads = [name for name in branch.axes if name in anatomy.axes and anatomy.axes[name].kind in HEADS]
            inner = tuple(name for name in branch.axes if name in anatomy.axes and anatomy.axes[name].kind == "width")
            factors.update({name: inner for name in heads if inner})
    return factors


def outer_layers(anatomy: Anatomy) -> list[str]:
    """Names of the layers that can be skipped, without those inside others."""
    layers = {name: branch for name, branch in anatomy.branches.items() if branch.kind == "layer"}
    return [name for name, branch in layers.items() if branch.layer in (None, name) or branch.layer not in layers]


def keeps_a_layer(anatomy: Anatomy, architecture: Mapping[str, Value]) -> bool:
    """Whether any layer is left, where a network has layers that can be skipped."""
    layers = outer_layers(anatomy)
    return not layers or any(architecture.get(name, True) for name in layers)


def skipped(anatomy: Anatomy, architecture: Mapping[str, Value]) -> frozenset[str]:
    """Names of all axes and branches that are gone with the branches that the architecture skips."""
    gone: set[str] = set()
    for name, branch in anatomy.branches.items():
        if architecture.get(name, True):
            continue
        gone.update((name, *branch.axes))
        if branch.kind == "layer":
            gone.update(n for n, axis in anatomy.axes.items() if axis.layer and within(axis.layer, branch.module))
            gone.update(n for n, inner in anatomy.branches.items() if within(inner.module, branch.module))
    return frozenset(gone)


def group_of(anatomy: Anatomy, axis: Axis) -> str:
    """The group of an axis; where one pattern holds several sizes (the stages of a network) the size is part of it."""
    name = pattern(axis.name)
    return f"{name}[{axis.size}]" if len(_sizes(anatomy)[name]) > 1 else name


@lru_cache(maxsize=16)  # asked for each of thousands of architectures
def _sizes(anatomy: Anatomy) -> dict[str, set[int]]:
    """Pattern -> the sizes of its axes."""
    found: dict[str, set[int]] = {}
    for axis in anatomy.axes.values():
        found.setdefault(pattern(axis.name), set()).add(axis.size)
    return found


def pattern(name: str) -> str:
    """A name without its list indices.

    >>> pattern("encoder.layer.11.ffn")
    'encoder.layer.*.ffn'
    """
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def moved(anatomy: Anatomy, architecture: Mapping[str, Value], path: str) -> str | None:
    """Where a module of the original is in the small one, whose lists have lost the skipped layers; None if gone.

    A skipped layer `a.layer.1` makes `a.layer.2.x` of the original `a.layer.1.x` of the small module.
    """
    branches = [anatomy.branches[name] for name in skipped(anatomy, architecture) if name in anatomy.branches]
    gone = {branch.module for branch in branches if branch.kind == "layer"}
    removed = {place for branch in branches for place in (branch.module, branch.exit, branch.feeder) if place}
    parts = path.split(".")
    places = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]  # the modules around it, and itself
    if removed.intersection(places):
        return None
    owners = ["", *places]
    return ".".join(
        str(int(part) - sum(1 for other in gone if _before(other, owners[at], int(part)))) if part.isdigit() else part
        for at, part in enumerate(parts)
    )


def _before(layer: str, owner: str, number: int) -> bool:
    """Is a layer an entry of this list before a number?"""
    return layer.rpartition(".")[0] == owner and int(layer.rpartition(".")[2]) < number


def layer_paths(anatomy: Anatomy) -> list[str]:
    """Paths of the layers, in the order of the network."""
    return [branch.module for branch in anatomy.branches.values() if branch.kind == "layer"]
