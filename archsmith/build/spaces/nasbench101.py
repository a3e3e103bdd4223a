"""NAS-Bench-101 (Ying et al. 2019): cells of up to seven vertices and nine edges, three operators.

A vertex gets the sum of what points at it; the output gets its inputs side by side, so the vertices' widths follow from
the graph. Its network: 128 channels, three stacks of three cells, half the size and twice the width between stacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from archsmith.errors import BadInput
from archsmith.space import JSON, Choice, Linear, Space, Value

VERTICES, EDGES = 7, 9
OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


class NASBench101:
    """Its space, and the network of a cell: choices "0-1" to "5-6" (is there an edge), "op1" to "op5"."""

    def __init__(self, channels: int = 128, stacks: int = 3, cells: int = 3) -> None:
        pairs = [f"{low}-{high}" for low, high in combinations(range(VERTICES), 2)]
        choices = {pair: Choice([0, 1]) for pair in pairs} | {f"op{i}": Choice(OPS) for i in range(1, VERTICES - 1)}
        most = Linear(dict.fromkeys(pairs, 1.0), EDGES)
        least = [Linear({pair: -1.0 for pair in pairs if pair.startswith("0-")}, -1.0)]
        least.append(Linear({pair: -1.0 for pair in pairs if pair.endswith(f"-{VERTICES - 1}")}, -1.0))
        self.space = Space(choices, [most, *least])
        self.needs = {"classes"}
        self._size = (channels, stacks, cells)

    def static(self, architecture: Mapping[str, Value], given: Mapping[str, Value]) -> JSON:
        """The network of one cell. Raises `BadInput` where its output is not reached from its input."""
        channels, stacks, cells = self._size
        network: list[JSON] = conv_norm_relu(channels, 3)
        for stack in range(stacks):
            if stack:
                network.append({"max_pool": {"kernel": 2, "stride": 2}})
            for _ in range(cells):
                network.append(cell(architecture, channels * 2**stack))
        return [*network, "mean", {"linear": {"out": given["classes"]}}]


def cell(architecture: Mapping[str, Value], out: int) -> JSON:
    """One cell as a graph; vertices that lie on no way from input to output are left out, as in the paper."""
    last = VERTICES - 1
    edges = {pair for pair in combinations(range(VERTICES), 2) if architecture[f"{pair[0]}-{pair[1]}"]}
    live = reached(edges, 0) & reached({(high, low) for low, high in edges}, last)
    if last not in live:
        raise BadInput("a cell's output is reached from its input", "it is not", "", "another set of edges")
    edges = {(low, high) for low, high in edges if low in live and high in live}
    widths = vertex_widths(edges, out)
    nodes: list[JSON] = []
    for vertex in sorted(live - {0, last}):
        reads = [low for low, high in edges if high == vertex]
        parts: list[JSON] = []
        for low in sorted(reads):
            # The input is brought to the vertex's width; what comes from a wider vertex is cut to it.
            parts.append(conv_norm_relu(widths[vertex], 1) if low == 0 else {"first": {"out": widths[vertex]}})
        summed = {"name": f"sum{vertex}", "from": [_name(low) for low in sorted(reads)], "of": parts, "join": "add"}
        operator: JSON = {"max_pool": {"kernel": 3}}
        if architecture[f"op{vertex}"] != OPS[2]:
            operator = conv_norm_relu(widths[vertex], 3 if architecture[f"op{vertex}"] == OPS[0] else 1)
        nodes += [summed, {"name": _name(vertex), "from": [f"sum{vertex}"], "of": operator}]
    ends = sorted(low for low, high in edges if high == last and low != 0)
    if ends:
        nodes.append({"name": "out", "from": [_name(low) for low in ends], "join": "concat"})
    if (0, last) in edges:
        projected: JSON = {"name": "projected", "from": ["in"], "of": conv_norm_relu(out, 1)}
        nodes.append(projected)
        if ends:
            nodes.append({"name": "both", "from": ["out", "projected"], "join": "add"})
    return {"graph": {"nodes": nodes}}


def vertex_widths(edges: set[tuple[int, int]], out: int) -> dict[int, int]:
    """Channels of each vertex: the output's shared by those that it puts together, the first ones one more; of any
    other the widest that it points at (the paper's `compute_vertex_channels`)."""
    last = VERTICES - 1
    ends = sorted(low for low, high in edges if high == last and low != 0)
    widths = {vertex: out // len(ends) + (i < out % len(ends)) for i, vertex in enumerate(ends)}
    for vertex in range(last - 1, 0, -1):
        if vertex not in widths and any(low == vertex for low, _ in edges):
            widths[vertex] = max(widths[high] for low, high in edges if low == vertex)
    return widths


def reached(edges: set[tuple[int, int]], begin: int) -> set[int]:
    """Every vertex that edges lead to from one, itself included."""
    found, asked = {begin}, [begin]
    while asked:
        here = asked.pop()
        new = {high for low, high in edges if low == here} - found
        found |= new
        asked += new
    return found


def conv_norm_relu(out: int, kernel: int) -> list[JSON]:
    """The order in which this benchmark has them."""
    return [{"conv": {"out": out, "kernel": kernel}}, "batch_norm", "relu"]


def _name(vertex: int) -> str:
    return "in" if vertex == 0 else f"v{vertex}"
