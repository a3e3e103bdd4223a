"""A plan made into a torch module."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from archsmith.build.pieces import made
from archsmith.build.plan import INPUT, Chain, Graph, Joined, Part, Piece, Weighed


class Network(nn.Module):
    """A built network. Pictures and series come as `x`; text as `input_ids` with its `attention_mask`."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, *input's shape) -> (B, *output's shape); `mask` (B, L): 1 where a token is no padding."""
        return run(self.body, x, mask)


class Series(nn.ModuleList):
    """Modules one after another."""

    masked = True

    def forward(self, x: Any, mask: Tensor | None = None) -> Tensor:
        """Through all of them."""
        for part in self:
            x = run(part, x, mask)
        out: Tensor = x
        return out


class Join(nn.ModuleList):
    """Modules side by side on one input, or on one each; what they give is added, multiplied or put together, or the
    first asks the second for what the third gives. `padded`: whether some places that are asked may be padding."""

    masked = True

    def __init__(self, how: str, parts: list[nn.Module], dimension: int, heads: int = 1, padded: bool = False) -> None:
        super().__init__(parts)
        self.how, self.dimension, self.heads, self.padded = how, dimension, heads, padded

    def forward(self, x: Tensor | list[Tensor], mask: Tensor | None = None) -> Tensor:
        """The inputs of each part in a list, or one for all."""
        reads = x if isinstance(x, list) else [x] * len(self)
        given = [run(part, each, mask) for part, each in zip(self, reads, strict=True)]
        if self.how == "concat":
            return torch.cat(given, self.dimension)
        if self.how == "attend":
            return self._attend(given, mask if self.padded else None)
        total = given[0]
        for other in given[1:]:
            total = total + other if self.how == "add" else total * other
        return total

    def _attend(self, given: list[Tensor], mask_BM: Tensor | None) -> Tensor:
        q_BHLC, k_BHMC, v_BHMD = (
            each.reshape(*each.shape[:2], self.heads, each.shape[2] // self.heads).transpose(1, 2) for each in given
        )
        seen = None if mask_BM is None else mask_BM[:, None, None].bool()
        out: Tensor = nn.functional.scaled_dot_product_attention(q_BHLC, k_BHMC, v_BHMD, seen)
        return out.transpose(1, 2).flatten(2)


class Wiring(nn.Module):
    """Nodes that read from inputs and from one another."""

    masked = True

    def __init__(self, nodes: list[tuple[str, tuple[str, ...], bool]], parts: list[nn.Module]) -> None:
        super().__init__()
        self.nodes, self.parts = nodes, nn.ModuleList(parts)

    def forward(self, x: Tensor | list[Tensor], mask: Tensor | None = None) -> Tensor:
        """The last node's output; several inputs come in a list."""
        given = x if isinstance(x, list) else [x]
        known = {f"{INPUT}{i}": each for i, each in enumerate(given)} | {INPUT: given[0]}
        out = given[0]
        for (name, reads, joins), part in zip(self.nodes, self.parts, strict=True):
            asked = [known[read] for read in reads]
            out = known[name] = run(part, asked if joins or len(asked) > 1 else asked[0], mask)
        return out


class Weights:
    """What the parts of a mixture are weighed by, set before each use: choice -> the weight of each value, 0-d.

    `dropout`: of parts that only hand on what comes in, while training (P-DARTS); they learn faster than any other.
    """

    def __init__(self) -> None:
        self.of: Mapping[str, Mapping[str, Tensor]] = {}
        self.dropout = 0.0


class Times(nn.Module):
    """A part times its weight. One of weight 0 is not computed; what it gives is the weight itself, which is 0, so that
    a gradient comes to the weight (Dong & Yang 2019, GDAS)."""

    masked = True

    def __init__(self, choice: str, value: str, part: nn.Module, weights: Weights, skips: bool) -> None:
        super().__init__()
        self.choice, self.value, self.part, self.weights, self.skips = choice, value, part, weights, skips

    def forward(self, x: Any, mask: Tensor | None = None) -> Tensor:
        """The part's output, or a 0-d zero."""
        weight = self.weights.of[self.choice][self.value]
        if float(weight.detach()) == 0:
            return weight
        out = run(self.part, x, mask)
        if self.skips and self.training and self.weights.dropout:
            out = nn.functional.dropout(out, self.weights.dropout)
        return weight * out


def run(part: nn.Module, x: Any, mask: Tensor | None) -> Tensor:
    """A module on its input, with the mask where it takes one."""
    out: Tensor = part(x, mask) if getattr(part, "masked", False) else part(x)
    return out


def network(
    plan: Part,
    seed: int = 0,
    module_of: Callable[[Piece], nn.Module] | None = None,
    weights: Weights | None = None,
) -> Network:
    """The module, its weights drawn from `seed`; or of modules that are there already, with `module_of`. `weights`: of
    the parts of a mixture."""
    if module_of is not None:
        return Network(_module(plan, module_of, weights))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(_module(plan, new, weights))


def new(piece: Piece) -> nn.Module:
    """A module of its own, its weights drawn from torch's generator."""
    return made(piece.kind, json.loads(piece.options), piece.gets)


def _module(part: Part, module_of: Callable[[Piece], nn.Module], weights: Weights | None) -> nn.Module:
    def inner(each: Part) -> nn.Module:
        return _module(each, module_of, weights)

    if isinstance(part, Piece):
        return module_of(part)
    if isinstance(part, Chain):
        return Series(inner(each) for each in part.parts)
    if isinstance(part, Joined):
        parts = [inner(each) for each in part.parts]
        dimension = 1 if len(part.gives.shape) == 3 else len(part.gives.shape)
        if not part.how:
            return parts[0]
        padded = part.how == "attend" and part.parts[1].gives.masked
        return Join(part.how, parts, dimension, part.heads, padded)
    if isinstance(part, Weighed) and weights is not None:
        skips = isinstance(part.part, Piece) and part.part.kind == "skip"
        return Times(part.choice, part.value, inner(part.part), weights, skips)
    if isinstance(part, Graph):
        parts = [inner(node.joined) for node in part.nodes]
        return Wiring([(node.name, node.reads, bool(node.joined.how)) for node in part.nodes], parts)
    raise AssertionError(part)
