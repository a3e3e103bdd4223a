"""Shared weights that are elastic: one module at a place, as large as any network has it, of which smaller ones read
slices (Cai et al. 2020, "Once-for-all"; Yu et al. 2019, "Slimmable neural networks").

A slice is the first channels of each segment of what comes in (`build.segments`), the first of what goes out, the first
heads, and the middle of a kernel times a learnt matrix (Cai et al. 2020, section 3.3: 7x7 -> 5x5 -> 3x3; the matrices
begin as identities). A convolution in groups keeps the first channels of each group. Networks of less depth have the
first layers, since layers are shared by their place. Norms over batches have statistics of their own for each network.
What is not in `KINDS` (recurrent layers), and what differs in other options (stride, dilation, groups), is shared only
where it is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.build import Blueprint, pieces
from archsmith.build.network import new, run
from archsmith.build.pieces import arguments, made, width
from archsmith.build.plan import Part as Plan
from archsmith.build.plan import Piece
from archsmith.build.segments import Segments, segments
from archsmith.compress.norms import BatchNorm
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.sizes import ends, ranked
from archsmith.evaluate.weight_shared import Shared
from archsmith.space import JSON

# By kind: the options that may differ where weights are shared, and what the dimensions of each parameter are. A
# dimension that is neither "in", "kernel", "qkv", "heads" nor "groups" is cut to its first entries.
CHANNELS = {"weight": "in", "bias": "in"}
KINDS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "attention": (
        ("heads", "head"),
        {"qkv.weight": "qkv in", "qkv.bias": "qkv", "out.weight": "in heads", "out.bias": "in"},
    ),
    "attentive": ((), {"score.weight": "one in", "score.bias": "one"}),
    "batch_norm": ((), CHANNELS),
    "conv": (("out", "kernel"), {"weight": "groups in kernel kernel", "bias": "groups"}),
    "depthwise": (("kernel",), {"weight": "in one kernel kernel"}),
    "embedding": (("out",), {"weight": "rows out"}),
    "group_norm": (("groups",), CHANNELS),
    "layer_norm": ((), CHANNELS),
    "linear": (("out",), {"weight": "out in", "bias": "out"}),
    "patches": (("out",), {"weight": "out in", "bias": "out"}),
    "positions": ((), {"table": "length in"}),
    "project": (
        ("out", "around"),
        {"weight": "out in", "bias": "out", "0.weight": "out in", "1.weight": "out", "1.bias": "out"},
    ),
    "resample": (("out",), {"even.weight": "out in", "odd.weight": "out in"}),
    "rms_norm": ((), CHANNELS),
    "separable": (("out", "kernel"), {"0.weight": "in one kernel kernel", "1.weight": "out in"}),
    "squeeze_excite": (
        ("hidden",),
        {"down.weight": "hidden in", "down.bias": "hidden", "up.weight": "in hidden", "up.bias": "in"},
    ),
    "transposed": (("out",), {"weight": "in out"}),
}


@dataclass(frozen=True)
class Extent:
    """How large a module is: the segments that it gets, and the options that may differ, as numbers."""

    gets: Segments
    sizes: Mapping[str, int]

    def __or__(self, other: Extent) -> Extent:
        """What has room for both; segments that are not of the same blocks count as one."""
        if self.blocks != other.blocks:
            return self.plain | other.plain
        gets = tuple((b, max(c, d), a) for (b, c, a), (_, d, _) in zip(self.gets, other.gets, strict=True))
        return Extent(gets, {name: max(size, other.sizes[name]) for name, size in self.sizes.items()})

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """What lies around the channels of each segment."""
        return [(before, after) for before, _, after in self.gets]

    @property
    def plain(self) -> Extent:
        """All channels as one segment."""
        return replace(self, gets=((1, self.channels, 1),))

    @property
    def channels(self) -> int:
        """Of all segments."""
        return sum(before * channels * after for before, channels, after in self.gets)


@dataclass(frozen=True)
class Family:
    """The modules of one place that are slices of one another: one of them, what has room for all, and the kernels that
    they have, the largest first."""

    piece: Piece
    extent: Extent
    kernels: tuple[int, ...]

    def joined(self, extent: Extent) -> Family:
        """With one more."""
        kernels = {*self.kernels, *([extent.sizes["kernel"]] if "kernel" in extent.sizes else [])}
        return replace(self, extent=self.extent | extent, kernels=tuple(sorted(kernels, reverse=True)))

    def fitted(self, extent: Extent) -> Extent | None:
        """An extent in the blocks of the family; None where it cannot be cut out."""
        if self.extent | extent != self.extent or extent.sizes.get("kernel") not in (*self.kernels, None):
            return None
        return extent if extent.blocks == self.extent.blocks else extent.plain

    def whole(self) -> nn.Module:
        """A module with room for all, and the matrices of its smaller kernels. Raises `ValueError` where there is
        none: channels that groups do not divide."""
        piece = self.piece
        signal = piece.gets if piece.gets.tokens else piece.gets.with_channels(self.extent.channels)
        module = made(piece.kind, {**json.loads(piece.options), **self.extent.sizes}, signal)
        dims = 2 if len(signal.shape) == 3 else 1
        for size in self.kernels[1:]:
            module.register_parameter(f"kernel_{size}", nn.Parameter(torch.eye(size**dims)))
        return module


def extent_of(piece: Piece, gets: Segments) -> tuple[JSON, Extent] | None:
    """What modules must have in common to share weights, and how large this one is; None where it has no slices."""
    if piece.kind not in KINDS:
        return None
    elastic = KINDS[piece.kind][0]
    told = arguments(piece.kind, json.loads(piece.options), piece.gets)
    sizes: dict[str, int] = {}
    for name in elastic:
        if name in ("out", "hidden"):
            sizes[name] = max(1, width(told[name], piece.gets))
        elif name == "head":
            sizes[name] = told[name] or piece.gets.channels // told["heads"]
        elif name != "around":
            sizes[name] = told[name]
    rest = {name: value for name, value in told.items() if name not in elastic}
    length = piece.gets.around if piece.kind == "positions" else ()
    extent = Extent(gets, sizes)
    flat = extent.blocks if any(block != (1, 1) for block in extent.blocks) else []  # places of another picture
    return [piece.path, piece.kind, rest, len(piece.gets.shape), list(length), flat], extent


@dataclass(frozen=True, eq=False)
class Slice:
    """What one parameter of a smaller module is of that of the whole: entries along some dimensions, then ever smaller
    parts of the kernel: (size, first entry, matrix)."""

    full: nn.Parameter
    entries: tuple[tuple[int, Tensor], ...]
    kernels: tuple[tuple[int, int, nn.Parameter], ...]

    def read(self) -> Tensor:
        """The slice; gradients go through it into the whole."""
        value: Tensor = self.full
        for dim, index in self.entries:
            first, count = int(index[0]), len(index)
            in_a_row = int(index[-1]) - first == count - 1  # entries are in order
            value = value.narrow(dim, first, count) if in_a_row else value.index_select(dim, index)
        for size, first, matrix in self.kernels:
            for dim in range(2, value.dim()):
                value = value.narrow(dim, first, size)
            value = (value.flatten(2) @ matrix.T).view(value.shape)
        return value


class View(nn.Module):
    """A module whose parameters are slices, read anew each time that it runs; its buffers are its own."""

    def __init__(self, inner: nn.Module, slices: Mapping[str, Slice]) -> None:
        super().__init__()
        self.inner, self.masked = inner, bool(getattr(inner, "masked", False))
        self.slices = [(*_owner(inner, name), each) for name, each in slices.items()]
        used = [p for each in slices.values() for p in (each.full, *(matrix for *_, matrix in each.kernels))]
        self.full = nn.ParameterList(dict.fromkeys(used))  # what an optimiser or a penalty sees
        for owner, name, _ in self.slices:
            del owner._parameters[name]
        inner.to_empty(device="cpu")
        for part in inner.modules():
            if isinstance(part, BatchNorm):
                part.reset_running_stats()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the smaller module gives."""
        for owner, name, each in self.slices:
            setattr(owner, name, each.read())
        return run(self.inner, x, mask)

    def follow(self, whole: nn.Module) -> View:
        """In the mode of the whole."""
        for its, own in zip(self.inner.modules(), whole.modules(), strict=True):
            its.training = own.training
        return self


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    return module.get_submodule(path), last


def view(piece: Piece, extent: Extent, family: Family, whole: nn.Module) -> View:
    """The module of a piece on slices of the whole of its family."""
    with torch.device("meta"):
        inner = new(piece)
    labels, full = KINDS[piece.kind][1], dict(whole.named_parameters())
    told = arguments(piece.kind, json.loads(piece.options), piece.gets)
    slices = {}
    for name, small in inner.named_parameters():
        of = labels[name.replace("conv.", "").replace("inner.", "")].split()
        entries, kernels = [], []
        for dim, label in enumerate(of[: small.dim()]):
            if label == "kernel":
                continue
            index = _entries(label, (small.shape[dim], full[name].shape[dim]), (extent, family.extent), told)
            if len(index) < full[name].shape[dim]:
                entries.append((dim, torch.from_numpy(index)))
        if "kernel" in of:
            size = family.kernels[0]
            for less in [each for each in family.kernels[1:] if each >= extent.sizes["kernel"]]:
                # Behind a causal convolution the last entry is the present; of others, the middle one (even ones have
                # one more to the right).
                first = size - less if told.get("causal") else (size - 1) // 2 - (less - 1) // 2
                kernels.append((less, first, full[f"kernel_{less}"]))
                size = less
        slices[name] = Slice(full[name], tuple(entries), tuple(kernels))
    return View(inner, slices)


def _entries(label: str, count: tuple[int, int], extents: tuple[Extent, Extent], told: Mapping[str, Any]) -> np.ndarray:
    """Which entries of a dimension of the whole a smaller one takes, (small,) int64 in order; `count` and `extents`:
    of the smaller, of the whole."""
    (few, many), (small, whole) = count, extents
    grouped = told.get("groups", 1) != 1
    if label == "in" and not (grouped and few != small.channels):
        return _of_segments(small.gets, whole.gets)
    if label in ("qkv", "heads"):
        first = (3,) if label == "qkv" else ()
        grids = [(*first, each.sizes["heads"], each.sizes["head"]) for each in (small, whole)]
        return _corner(*grids)
    if label == "groups" and grouped:
        groups = [told["groups"]] * 2 if isinstance(told["groups"], int) else [_groups(each, told) for each in extents]
        each_few, each_many = few // groups[0], many // groups[1]
        own = np.arange(groups[0])
        if groups == [small.channels, whole.channels]:  # a group is a channel
            own = _of_segments(small.gets, whole.gets)
        return (own[:, None] * each_many + np.arange(each_few)).ravel()
    return np.arange(few)


def _groups(extent: Extent, told: Mapping[str, Any]) -> int:
    """A number of groups that goes with the channels: "in", "in*0.5"."""
    return round(extent.channels * float(str(told["groups"]).partition("*")[2] or 1))


def _of_segments(small: Segments, whole: Segments) -> np.ndarray:
    """The first channels of each segment, (small,) int64."""
    found, start = [], 0
    for own, full in zip(small, whole, strict=True):
        found.append(start + _corner(own, full))
        start += int(np.prod(full))
    return np.concatenate(found)


def _corner(small: Sequence[int], whole: Sequence[int]) -> np.ndarray:
    """Where the first entries of each dimension of a block lie in it, flattened.

    >>> _corner((2, 2), (3, 4)).tolist()
    [0, 1, 4, 5]
    """
    block = np.arange(int(np.prod(whole))).reshape(whole)
    return block[tuple(slice(0, size) for size in small)].ravel()


class Elastic(Shared):
    """Shared weights of which smaller networks read slices. `order`: the values of each choice, the largest first."""

    def __init__(self, ground: Ground, blueprint: Blueprint, seed: int = 0) -> None:
        self.families: dict[str, Family | None] = {}
        self.places: dict[tuple[Piece, Segments], None] = {}
        self.views: dict[tuple[Piece, Segments], View] = {}
        super().__init__(ground, blueprint, seed)
        self.order = ranked(ground, blueprint)
        self.cover(ends(ground, blueprint, self.order))
        for key, family in self.families.items():
            try:
                assert family is not None
                self.kept(key, family.whole)
            except ValueError:
                self.families[key] = None
        for piece, gets in self.places:
            self.module_at(piece, gets)

    def cover(self, plans: Sequence[Plan]) -> bool:
        """Note how large these networks have each module, before any is made; whether any of that is new."""
        before, known = dict(self.families), len(self.bank)
        every = dict.fromkeys((piece, gets[piece.path]) for plan in plans for gets in [segments(plan)]
                              for piece in pieces(plan))  # fmt: skip
        for piece, gets in every:
            if found := extent_of(piece, gets):
                key, extent = json.dumps(found[0]), found[1]
                former = self.families.get(key) or Family(piece, extent, ())
                self.families[key] = former.joined(extent)
            else:
                self.module_of(piece)
        self.places |= every
        return self.families != before or len(self.bank) > known

    def modules_of(self, plan: Plan) -> Callable[[Piece], nn.Module]:
        """The module of each place of a plan."""
        gets = segments(plan)
        return lambda piece: self.module_at(piece, gets[piece.path])

    def module_at(self, piece: Piece, gets: Segments) -> nn.Module:
        """The module of one place: the whole, a view of it, or what is shared only where it is the same."""
        found = extent_of(piece, gets)
        family = self.families.get(json.dumps(found[0])) if found else None
        extent = family.fitted(found[1]) if found and family else None
        if found is None or family is None or extent is None:
            return self.module_of(piece)
        whole = self.kept(json.dumps(found[0]), family.whole)
        if extent == family.extent:
            return whole
        if (piece, gets) not in self.views:
            self.views[piece, gets] = view(piece, extent, family, whole)
        return self.views[piece, gets].follow(whole)
