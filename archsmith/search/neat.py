"""NEAT: Stanley & Miikkulainen 2002, "Evolving Neural Networks through Augmenting Topologies".

Genomes begin without hidden nodes and grow. A link has an innovation number, by which the genes of unlike genomes are
lined up; genomes that are alike form species, which share their fitness, so that what is new has time to get better.

Distance of two genomes: c1 E / L + c2 D / L + c3 W, with E excess and D disjoint links, W the mean difference of the
weights of those they share, and L the links of the larger one (1 where both have fewer than 20).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from archsmith.build.genome import Genome, Link, from_inputs
from archsmith.errors import BadInput

Fitness = Callable[[Sequence[Genome]], Sequence[float]]
SMALL = 20  # links, below which the distance does not divide by their number


@dataclass(frozen=True)
class Rates:
    """The numbers of the paper (section 4.1), with its symbols where it has them; but what grows does so about twice as
    often (0.03 and 0.05 there), which leaves fewer searches of 100 generations without an end."""

    excess: float = 1.0  # c1
    disjoint: float = 1.0  # c2
    difference: float = 0.4  # c3
    threshold: float = 3.0  # delta_t
    stagnant: int = 15  # generations without a better one, after which a species has no offspring
    champion: int = 5  # members, above which the best of a species stays as it is
    survivors: float = 0.2  # share of a species that may have offspring
    weights: float = 0.8  # chance that a genome's weights change
    perturbed: float = 0.9  # of these, chance that a weight moves; else it is drawn anew
    power: float = 2.5  # how far it moves, and how far from 0 it is drawn
    disabled: float = 0.75  # chance that a link is, where it is in either parent
    alone: float = 0.25  # share of offspring of one parent
    between: float = 0.001  # chance of a parent of another species
    node: float = 0.05
    link: float = 0.1  # the paper has 0.3 for large populations


@dataclass(frozen=True)
class Evolved:
    """What came out: the best genome ever and its fitness; generations gone through, genomes tried, and how many
    species there were in each generation."""

    genome: Genome
    fitness: float
    generations: int
    evaluations: int
    species: tuple[int, ...]


class Innovations:
    """Numbers of links by their ends, and of nodes by the link that they split: the same change has the same number."""

    def __init__(self, first: Genome) -> None:
        self._links = {(link.source, link.target): link.number for link in first.links}
        self._nodes: dict[tuple[int, int], int] = {}
        self._next = first.nodes[-1] + 1

    def link(self, source: int, target: int) -> int:
        """The number of the link between two nodes."""
        return self._links.setdefault((source, target), len(self._links))

    def node(self, number: int, genome: Genome) -> int:
        """A node for the place of a link, which the genome does not have yet."""
        times = 0
        while True:
            found = self._nodes.setdefault((number, times), self._next)
            self._next = max(self._next, found + 1)
            if found not in genome.nodes:
                return found
            times += 1


@dataclass
class _Species:
    """Genomes near a representative. `best` and `since`: the highest fitness, and generations since it rose."""

    representative: Genome
    members: list[int]
    best: float = -np.inf
    since: int = 0


def neat(
    fitness: Fitness,
    inputs: int,
    outputs: int,
    *,
    rng: np.random.Generator,
    population: int = 150,
    generations: int = 100,
    goal: float = np.inf,
    rates: Rates | None = None,
    on_generation: Callable[[int, Sequence[Genome], Sequence[float]], None] | None = None,
) -> Evolved:
    """Grow networks until one has the fitness `goal`, or the generations are over.

    `fitness`: genomes -> a number each, more is better, finite (a genome whose number is not has the worst of its
    generation); it gets a whole generation, which `build.Grown` runs at once. Raises `BadInput` for sizes below 1.
    """
    if min(inputs, outputs, generations) < 1 or population < 2:
        raise BadInput(
            "NEAT has inputs, outputs, generations and two genomes", f"{inputs}, {outputs}, {generations}, {population}"
        )
    rates = rates or Rates()
    count = (inputs + 1) * outputs
    genomes = [from_inputs(inputs, outputs, rng.uniform(-1, 1, count).tolist()) for _ in range(population)]
    innovations, species, told = Innovations(genomes[0]), list[_Species](), list[int]()
    best, most = genomes[0], -np.inf
    for generation in range(generations):
        found = finite(fitness(genomes), len(genomes))
        if on_generation:
            on_generation(generation, genomes, found.tolist())
        if found.max() > most:
            best, most = genomes[int(found.argmax())], float(found.max())
        species = grouped(genomes, species, rates)
        told.append(len(species))
        if most >= goal or generation == generations - 1:
            break
        genomes = offspring(genomes, found, species, innovations, rates, rng)
    return Evolved(best, most, len(told), population * len(told), tuple(told))


def finite(found: Sequence[float], count: int) -> np.ndarray:
    """(P,) fitness; what is not finite is the worst. Raises `BadInput` for another number of them, or none."""
    values = np.asarray(found, dtype=float)
    if values.shape != (count,):
        raise BadInput("a fitness gives one number a genome", f"{values.shape} for {count}")
    if not np.isfinite(values).any():
        raise BadInput("a fitness is a finite number", "none of a generation's is")
    return np.where(np.isfinite(values), values, values[np.isfinite(values)].min())


def distance(a: Genome, b: Genome, rates: Rates) -> float:
    """How unlike two genomes are."""
    of_a, of_b = ({link.number: link.weight for link in genome.links} for genome in (a, b))
    shared = of_a.keys() & of_b.keys()
    last = min(max(of_a, default=-1), max(of_b, default=-1))
    apart = of_a.keys() ^ of_b.keys()
    excess = sum(number > last for number in apart)
    size = max(len(of_a), len(of_b))
    size = 1 if size < SMALL else size
    weights = sum(abs(of_a[number] - of_b[number]) for number in shared) / max(1, len(shared))
    unlike = rates.excess * excess + rates.disjoint * (len(apart) - excess)
    return unlike / size + rates.difference * weights


def grouped(genomes: Sequence[Genome], before: Sequence[_Species], rates: Rates) -> list[_Species]:
    """Each genome in the first species whose representative, of the generation before, is near, or in its own."""
    species = [replace(each, members=[]) for each in before]
    for number, genome in enumerate(genomes):
        for each in species:
            if distance(genome, each.representative, rates) < rates.threshold:
                each.members.append(number)
                break
        else:
            species.append(_Species(genome, [number]))
    return [each for each in species if each.members]


def offspring(
    genomes: Sequence[Genome],
    fitness: np.ndarray,
    species: list[_Species],
    innovations: Innovations,
    rates: Rates,
    rng: np.random.Generator,
) -> list[Genome]:
    """The next generation: to each species by the fitness that its members share."""
    positive = fitness - min(0.0, fitness.min())
    for each in species:
        each.members.sort(key=lambda number: -fitness[number])
        top = float(fitness[each.members[0]])
        each.best, each.since = (top, 0) if top > each.best else (each.best, each.since + 1)
    leading = max(species, key=lambda each: each.best)
    alive = [each for each in species if each.since < rates.stagnant or each is leading]
    shares = np.array([positive[each.members].mean() for each in alive])
    shares = shares / shares.sum() if shares.sum() > 0 else np.full(len(alive), 1 / len(alive))
    counts = _rounded(shares * len(genomes), len(genomes))
    parents = [each.members[: max(1, int(np.ceil(rates.survivors * len(each.members))))] for each in alive]
    following: list[Genome] = []
    for each, able, count in zip(alive, parents, counts, strict=True):
        if count and len(each.members) > rates.champion:
            following.append(genomes[each.members[0]])
            count -= 1
        for _ in range(count):
            first = able[int(rng.integers(len(able)))]
            child = genomes[first]
            if rng.random() >= rates.alone:
                others = parents[int(rng.integers(len(parents)))] if rng.random() < rates.between else able
                second = others[int(rng.integers(len(others)))]
                better, worse = (first, second) if fitness[first] >= fitness[second] else (second, first)
                child = crossed(genomes[better], genomes[worse], rates, rng)
            following.append(mutated(child, innovations, rates, rng))
    for each in alive:
        each.representative = genomes[each.members[int(rng.integers(len(each.members)))]]
    species[:] = alive
    return following


def _rounded(shares: np.ndarray, total: int) -> list[int]:
    """Whole numbers with this total, each less than 1 from its share: the largest remainders are rounded up."""
    counts = np.floor(shares).astype(int)
    for at in np.argsort(-(shares - counts), kind="stable")[: total - counts.sum()]:
        counts[at] += 1
    found: list[int] = counts.tolist()
    return found


def crossed(better: Genome, worse: Genome, rates: Rates, rng: np.random.Generator) -> Genome:
    """Links that both have from either, the others from the better; so the child has its nodes, and no cycle that it
    has not."""
    other = {link.number: link for link in worse.links}
    links: list[Link] = []
    for link in better.links:
        match = other.get(link.number)
        weight = match.weight if match is not None and rng.random() < 0.5 else link.weight
        enabled = link.enabled
        if match is not None and not (link.enabled and match.enabled):
            enabled = bool(rng.random() >= rates.disabled)
        links.append(replace(link, weight=weight, enabled=enabled))
    return replace(better, links=tuple(links))


def mutated(genome: Genome, innovations: Innovations, rates: Rates, rng: np.random.Generator) -> Genome:
    """Perhaps a node, a link, and other weights."""
    if rng.random() < rates.node:
        genome = with_node(genome, innovations, rng)
    if rng.random() < rates.link:
        genome = with_link(genome, innovations, rates, rng)
    if rng.random() >= rates.weights:
        return genome
    moved = rng.random(len(genome.links)) < rates.perturbed
    drawn = rng.uniform(-rates.power, rates.power, len(genome.links))
    links = (
        replace(link, weight=float(link.weight + by if move else by))
        for link, move, by in zip(genome.links, moved, drawn, strict=True)
    )
    return replace(genome, links=tuple(links))


def with_node(genome: Genome, innovations: Innovations, rng: np.random.Generator) -> Genome:
    """A link split by a new node: the first half has weight 1, the second the old one, so that little changes."""
    able = [link for link in genome.links if link.enabled]
    if not able:
        return genome
    old = able[int(rng.integers(len(able)))]
    node = innovations.node(old.number, genome)
    kept = [replace(link, enabled=False) if link is old else link for link in genome.links]
    first = Link(innovations.link(old.source, node), old.source, node, 1.0)
    second = Link(innovations.link(node, old.target), node, old.target, old.weight)
    return replace(genome, links=tuple(sorted([*kept, first, second], key=lambda link: link.number)))


def with_link(genome: Genome, innovations: Innovations, rates: Rates, rng: np.random.Generator) -> Genome:
    """A link between two nodes that have none, and between which it makes no cycle, disabled links counted too."""
    there = {(link.source, link.target) for link in genome.links}
    after: dict[int, set[int]] = {}
    for source, target in there:
        after.setdefault(source, set()).add(target)

    def reached(node: int) -> set[int]:
        found, asked = set[int](), [node]
        while asked:
            new = after.get(asked.pop(), set()) - found
            found |= new
            asked += new
        return found

    first = genome.inputs + 1
    free: list[tuple[int, int]] = []
    for target in genome.nodes[first:]:
        beyond = reached(target) | {target}
        outputs = range(first, first + genome.outputs)
        free += [
            (source, target)
            for source in genome.nodes
            if source not in beyond and source not in outputs and (source, target) not in there
        ]
    if not free:
        return genome
    source, target = free[int(rng.integers(len(free)))]
    new = Link(innovations.link(source, target), source, target, float(rng.uniform(-rates.power, rates.power)))
    return replace(genome, links=tuple(sorted([*genome.links, new], key=lambda link: link.number)))
