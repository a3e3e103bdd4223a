"""What can change in a network, as plain data: axes, branches, and the certificates that prove them.

Unit: one thing that is kept or cut whole (a head, a feed-forward neuron, a channel). Position: an index into one
dimension of one parameter. A head of width 32 occupies 32 positions in the query weight's dimension 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

AxisKind = Literal["heads", "kv_groups", "ffn", "residual", "channels", "width"]
BranchKind = Literal["attention", "ffn", "layer"]


@dataclass(frozen=True, eq=False)
class Place:
    """Where an axis passes through a parameter or buffer: dimension `dim` of `parameter` (its dotted name).

    `index` (units, positions) int64: row u holds the positions that unit u occupies, so a fused qkv weight
    or a head of many columns is one Place.
    """

    parameter: str
    dim: int
    index: np.ndarray


@dataclass(frozen=True)
class Entry:
    """Where an axis enters a module in a tensor that was made outside of it with something different for each unit
    (slopes of heads): dimension `dim` of `argument`, in which each unit is followed by `inner` positions of its own."""

    module: str
    argument: str
    dim: int
    inner: int


@dataclass(frozen=True, eq=False)
class Axis:
    """One width: every place that must be cut together. `size` units; `layer`: the list entry it lies in.

    `integers`: (module, attribute) pairs of whole numbers baked into modules that shrink in proportion to it.
    `entries`: of what modules are given there, they take the kept units alone.
    """

    name: str
    kind: AxisKind
    size: int
    places: tuple[Place, ...]
    layer: str | None = None
    integers: tuple[tuple[str, str], ...] = ()
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Branch:
    """A piece that can be skipped whole: `module` is its path, `axes` the names of the axes that vanish with it.

    `exit`: the product that ends it, whose output is added to the stream (empty for a layer). Where it lies inside
    `module`, one stub stands for both; else one for each. `items`: length of the tuple that `module` gives, 0 for a
    bare tensor. `feeder`: the norm before it that nothing else reads and that goes with it, if there is one.
    """

    name: str
    kind: BranchKind
    module: str
    axes: tuple[str, ...]
    layer: str | None = None
    exit: str = ""
    items: int = 0
    feeder: str = ""


@dataclass(frozen=True)
class Certificate:
    """The measured verdict on one axis or branch. `error` is the largest deviation over the output's scale."""

    subject: str
    accepted: bool
    reason: str
    error: float


@dataclass(frozen=True, eq=False)
class Anatomy:
    """All that is known about what a model can become. Only certified axes and branches are in `axes` and `branches`.

    `frozen` maps "parameter[dim]" to why it cannot change; `unknown_operators` counts operators without a rule.
    """

    axes: Mapping[str, Axis]
    branches: Mapping[str, Branch]
    certificates: tuple[Certificate, ...]
    frozen: Mapping[str, str] = field(default_factory=dict)
    unknown_operators: Mapping[str, int] = field(default_factory=dict)
