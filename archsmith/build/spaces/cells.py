"""Cells that read the two before them, stacked: NASNet (Zoph et al. 2018), AmoebaNet (Real et al. 2019), ENAS's micro
space (Pham et al. 2018) and DARTS (Liu et al. 2019). They differ in operators, in blocks a cell, and in what ends it.

A network has a normal cell and one that halves the size, each the same wherever it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

from archsmith.build.plan import PICKED
from archsmith.build.spec import Declared, Relaxed, Strengths
from archsmith.space import JSON, Architecture, Constraint, Forbidden

NONE = "none"

DARTS_OPS = ("skip", "max_3", "avg_3", "sep_3", "sep_5", "dil_3", "dil_5")
ENAS_OPS = ("skip", "avg_3", "max_3", "sep_3", "sep_5")
AMOEBA_OPS = ("skip", "avg_3", "max_3", "sep_3", "sep_5", "sep_7", "dil_3", "wide_7")
NASNET_OPS = (
    "skip", "avg_3", "max_3", "max_5", "max_7", "conv_1", "conv_3", "dil_3", "sep_3", "sep_5", "sep_7", "wide_3",
    "wide_7",
)  # fmt: skip


def two_before(
    ops: Sequence[str], blocks: int, all_blocks: bool, channels: int, cells: int, stages: int = 3
) -> Declared:
    """`cells` cells, those at each third (of three stages) halving; a block is the sum of two operators on two of what
    came before it. The cell's output: all blocks' together (`all_blocks`), or those that no other block reads.
    """
    choices: dict[str, Sequence[str]] = {"op": ops}
    for block in range(blocks):
        choices[f"from{block}"] = sources_of(block)
    halving = len(_halving(cells, stages))
    scopes = [*(["normal"] if halving < cells else []), *(["reduction"] if halving else [])]
    network = _stacked(partial(_cell, ops, blocks, all_blocks), channels, cells, stages)
    if not all_blocks:
        return Declared(choices, network)
    edges = Declared({"op": [*ops, NONE]}, _stacked(partial(_edges, ops, blocks), channels, cells, stages))
    found = Declared(choices, network, _differing(scopes, blocks))
    found.relaxed = Relaxed(edges, partial(_strongest, scopes, blocks), partial(_kept, scopes, blocks))
    return found


def _halving(cells: int, stages: int) -> set[int]:
    """The numbers of the cells that halve the size."""
    return {stage * cells // stages for stage in range(1, stages)}


def _stacked(cell: Callable[[int, bool, bool], JSON], channels: int, cells: int, stages: int) -> JSON:
    """A stem, the cells, and the head; `cell`: (width, whether it halves the size, whether the one before did)."""
    nodes: list[JSON] = [{"name": "stem", "from": ["in"], "of": [{"conv": {"out": 3 * channels}}, "batch_norm"]}]
    names, width, halved = ["stem", "stem"], channels, False
    for number in range(cells):
        reduces = number in _halving(cells, stages)
        width = 2 * width if reduces else width
        body = cell(width, reduces, halved)
        scope = "reduction" if reduces else "normal"
        nodes.append({"name": f"cell{number}", "from": names[-2:], "of": {"scope": scope, "of": body}})
        names.append(f"cell{number}")
        halved = reduces
    nodes.append({"name": "head", "from": [names[-1]], "of": ["relu", "mean", {"linear": {"out": "$classes"}}]})
    return {"graph": {"nodes": nodes}}


def sources_of(block: int) -> list[str]:
    """What a block may read."""
    return ["s0", "s1", *(f"block{i}" for i in range(block))]


def _cell(ops: Sequence[str], blocks: int, all_blocks: bool, width: int, reduces: bool, halved: bool) -> JSON:
    """Two sides a block, each an operator on one of what came before."""
    nodes = _entries(width, halved)
    for block in range(blocks):
        sides = []
        for side in ("left", "right"):
            by_source = {source: _picked(ops, reduces, source) for source in sources_of(block)}
            sides.append({"scope": f"block{block}.{side}", "of": {"pick": f"$from{block}", "of": by_source}})
        reads = [{"scope": f"block{block}.{side}", "of": f"$from{block}"} for side in ("left", "right")]
        nodes.append({"name": f"block{block}", "from": reads, "of": sides, "join": "add"})
    out = {"name": "out", "from": [f"block{i}" for i in range(blocks)], "join": "concat", "unread": not all_blocks}
    return {"graph": {"nodes": [*nodes, out]}}


def _edges(ops: Sequence[str], blocks: int, width: int, reduces: bool, halved: bool) -> JSON:
    """The same with an operator, or none, on everything that came before: what DARTS mixes."""
    nodes = _entries(width, halved)
    for block in range(blocks):
        sources = sources_of(block)
        every: list[JSON] = [
            {"scope": f"block{block}.{source}", "of": {PICKED: [source, _picked([*ops, NONE], reduces, source)]}}
            for source in sources
        ]
        nodes.append({"name": f"block{block}", "from": sources, "of": every, "join": "add"})
    out = {"name": "out", "from": [f"block{i}" for i in range(blocks)], "join": "concat"}
    return {"graph": {"nodes": [*nodes, out]}}


def _strongest(scopes: Sequence[str], blocks: int, strength: Strengths) -> Architecture:
    """Of each block the two sources whose strongest operator is strongest, and that operator (Liu et al. 2019)."""
    found: dict[str, str] = {}
    for scope, block in product(scopes, range(blocks)):
        for side, (source, op) in zip(("left", "right"), _two(scope, block, strength), strict=True):
            found[f"{scope}.block{block}.{side}.from{block}"] = source
            found[f"{scope}.block{block}.{side}.op"] = op
    return Architecture(found)


def _kept(scopes: Sequence[str], blocks: int, strength: Strengths) -> dict[str, str]:
    """The same by the names of what is mixed: of each edge that stays its operator."""
    return {
        f"{scope}.block{block}.{source}.op": op
        for scope, block in product(scopes, range(blocks))
        for source, op in _two(scope, block, strength)
    }


def _two(scope: str, block: int, strength: Strengths) -> list[tuple[str, str]]:
    """A block's two sources with their operators."""
    best: dict[str, tuple[float, str]] = {}
    for source in sources_of(block):
        of = strength[f"{scope}.block{block}.{source}.op"]
        total = sum(math.exp(each) for each in of.values())
        best[source] = max((math.exp(each) / total, op) for op, each in of.items() if op != NONE)
    two = sorted(sorted(best, key=lambda source: best[source][0])[-2:], key=sources_of(block).index)
    return [(source, best[source][1]) for source in two]


def _picked(ops: Sequence[str], reduces: bool, source: str) -> JSON:
    return {"pick": "$op", "of": {op: operator(op, 2 if reduces and source in ("s0", "s1") else 1) for op in ops}}


def _entries(width: int, halved: bool) -> list[JSON]:
    """What comes in is brought to one width, and to one size where the cell before has halved it."""
    thinner: JSON = ["relu", {"conv": {"out": width, "kernel": 1}}, "batch_norm"]
    smaller: JSON = ["relu", {"resample": {"out": width}}, "batch_norm"]
    return [
        {"name": "s0", "from": ["in0"], "of": smaller if halved else thinner},
        {"name": "s1", "from": ["in1"], "of": thinner},
    ]


def operator(name: str, stride: int) -> JSON:
    """One of the field's operators, width kept; each begins with ReLU where it learns."""
    kind, _, size = name.partition("_")
    kernel = int(size or 1)
    norm = "batch_norm"
    if kind == "skip":
        return "skip" if stride == 1 else ["relu", {"resample": {"out": "in"}}, norm]
    if kind in ("max", "avg"):
        return {f"{kind}_pool": {"kernel": kernel, "stride": stride}}
    if kind == NONE:
        return "zero" if stride == 1 else [{"max_pool": {"kernel": 3, "stride": stride}}, "zero"]
    if kind == "conv":
        return ["relu", {"conv": {"out": "in", "kernel": kernel, "stride": stride}}, norm]
    if kind == "wide":  # 1 x k and k x 1 by turns, as a k x k depthwise here
        return ["relu", {"depthwise": {"kernel": kernel, "stride": stride}}, norm]
    separable = {"out": "in", "kernel": kernel, "stride": stride}
    if kind == "dil":
        return ["relu", {"separable": {**separable, "dilation": 2}}, norm]
    again = {**separable, "stride": 1}
    return ["relu", {"separable": separable}, norm, "relu", {"separable": again}, norm]


def _differing(scopes: Sequence[str], blocks: int) -> list[Constraint]:
    """The two sides of a block read different inputs, as in DARTS."""
    found: list[Constraint] = []
    for scope, block in product(scopes, range(blocks)):
        for source in sources_of(block):
            sides = (f"{scope}.block{block}.{side}.from{block}" for side in ("left", "right"))
            found.append(Forbidden(dict.fromkeys(sides, source)))
    return found


def darts(channels: int = 16, cells: int = 8) -> Declared:
    """Four blocks a cell, seven operators, all blocks put together (36 channels and 20 cells in the paper's last)."""
    return two_before(DARTS_OPS, 4, True, channels, cells)
