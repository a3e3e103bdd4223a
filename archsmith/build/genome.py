"""Genomes of NEAT (Stanley & Miikkulainen 2002): links between nodes as plain data, and the networks that they make.

Nodes are numbered: the inputs, then one that is always 1, then the outputs, then the hidden ones in the order in which
they came. P: genomes; B: rows; N: nodes of the largest genome.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.space import JSON

STEEP = 4.9  # of the sigmoid: small weights make it nearly linear, and it saturates soon


@dataclass(frozen=True)
class Link:
    """A connection; `number` is its innovation number, the same wherever the same link came up."""

    number: int
    source: int
    target: int
    weight: float
    enabled: bool = True


@dataclass(frozen=True)
class Genome:
    """Links in the order of their numbers; those that are enabled make no cycle."""

    inputs: int
    outputs: int
    links: tuple[Link, ...]

    @property
    def bias(self) -> int:
        """The node that is always 1."""
        return self.inputs

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """All nodes, in order."""
        fixed = range(self.inputs + 1 + self.outputs)
        return tuple(sorted({*fixed, *(end for link in self.links for end in (link.source, link.target))}))

    @cached_property
    def levels(self) -> dict[int, int]:
        """Node -> how many links there are on the longest way to it; at least 1 for what is no input. Raises `BadInput`
        for links that go round, or into an input."""
        into: dict[int, list[int]] = {node: [] for node in self.nodes[self.inputs + 1 :]}
        if wrong := [link.number for link in self.links if link.target not in into]:
            raise BadInput("no link leads into an input", f"link {wrong[0]} does")
        for link in self.links:
            if link.enabled:
                into[link.target].append(link.source)
        found = dict.fromkeys(range(self.inputs + 1), 0)
        while into:
            ready = [node for node, sources in into.items() if all(source in found for source in sources)]
            if not ready:
                waiting = ", ".join(map(str, into))
                raise BadInput("links that are enabled make no cycle", f"nodes {waiting} wait for one another")
            for node in ready:
                found[node] = 1 + max((found[source] for source in into.pop(node)), default=0)
        return found

    def to_json(self) -> JSON:
        """A JSON object."""
        return {"inputs": self.inputs, "outputs": self.outputs, "links": [asdict(link) for link in self.links]}

    @classmethod
    def from_json(cls, data: JSON) -> Genome:
        """The inverse of `to_json`. Raises `BadInput` for what is none."""
        try:
            return cls(int(data["inputs"]), int(data["outputs"]), tuple(Link(**link) for link in data["links"]))
        except (TypeError, KeyError, ValueError) as error:
            raise BadInput("a genome has inputs, outputs and links", str(error)) from error


class Grown(nn.Module):
    """The networks of several genomes as one module: all run at once on the same rows, level by level.

    `weights` (P, N, N) from node to node, where there is a link, are parameters: what was grown can be trained, too.
    Raises `BadInput` for genomes whose links go round, or that differ in inputs and outputs.
    """

    def __init__(self, genomes: Sequence[Genome]) -> None:
        super().__init__()
        if not genomes:
            raise BadInput("a generation has at least one genome", "none")
        first = genomes[0]
        if any((each.inputs, each.outputs) != (first.inputs, first.outputs) for each in genomes):
            raise BadInput("genomes that run together have the same inputs and outputs", "others")
        rows = [_by_level(genome) for genome in genomes]
        # A column for each node; a level has as many as the genome with most nodes in it.
        ends = [first.inputs + 1]
        for level in range(1, max(len(row) for row in rows)):
            ends.append(ends[-1] + max(len(row[level]) if level < len(row) else 0 for row in rows))
        self.ends = ends
        at: list[tuple[int, int, int]] = []
        values: list[float] = []
        outputs: list[list[int]] = []
        for number, (genome, row) in enumerate(zip(genomes, rows, strict=True)):
            begins = [0, *ends]
            place = {node: begins[level] + i for level, nodes in enumerate(row) for i, node in enumerate(nodes)}
            enabled = [link for link in genome.links if link.enabled]
            at += [(number, place[link.source], place[link.target]) for link in enabled]
            values += [link.weight for link in enabled]
            outputs.append([place[genome.bias + 1 + out] for out in range(genome.outputs)])
        weights = torch.zeros(len(genomes), ends[-1], ends[-1])
        there = torch.zeros_like(weights)
        if at:
            index = tuple(torch.tensor(at).T)
            weights[index], there[index] = torch.tensor(values), 1.0
        self.weights = nn.Parameter(weights)
        self.there: Tensor
        self.last: Tensor
        self.register_buffer("there", there)
        self.register_buffer("last", torch.tensor(outputs))

    def forward(self, x_BI: Tensor) -> Tensor:
        """(B, inputs) -> (P, B, outputs) in [0, 1]."""
        weights = STEEP * self.weights * self.there
        h = torch.cat([x_BI, torch.ones_like(x_BI[:, :1])], 1).expand(len(weights), -1, -1)
        for begin, end in pairwise(self.ends):
            h = torch.cat([h, torch.sigmoid(torch.bmm(h, weights[:, :begin, begin:end]))], 2)
        return h.gather(2, self.last[:, None].expand(-1, len(x_BI), -1))


def _by_level(genome: Genome) -> list[list[int]]:
    """Nodes that wait for nothing, nodes that wait for those, and so on."""
    found: list[list[int]] = [[] for _ in range(1 + max(genome.levels.values()))]
    for node, level in sorted(genome.levels.items()):
        found[level].append(node)
    return found


def from_inputs(inputs: int, outputs: int, weights: Iterable[float]) -> Genome:
    """The least genome: every input and the bias linked to every output.

    >>> from_inputs(2, 1, [0.5, -0.5, 1.0]).nodes
    (0, 1, 2, 3)
    """
    ends = [(source, inputs + 1 + out) for out in range(outputs) for source in range(inputs + 1)]
    links = (Link(n, *end, weight) for n, (end, weight) in enumerate(zip(ends, weights, strict=True)))
    return Genome(inputs, outputs, tuple(links))
