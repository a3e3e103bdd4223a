"""NEAT on XOR: how many seeds are solved and how soon; and how long 1,024 rows take, beside the package neat-python.

Solved: all four outputs on the right side of a half, as in Stanley & Miikkulainen 2002 (section 4.1), who report 32
generations, 4,755 networks and 2.35 hidden nodes in the mean of 100 runs. Needs `pip install neat-python` for the
comparison, which is of the same genomes with the same activation, on one thread.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from neat.nn import FeedForwardNetwork
from record import Record, main

from archsmith.build.genome import STEEP, Genome, Grown
from archsmith.search.neat import Innovations, Rates, mutated, neat

X, Y = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.tensor([0.0, 1.0, 1.0, 0.0])
SOLVED, SEEDS, MUST, FASTER, ROWS, GENOMES = 16.0, 100, 95, 10.0, 1024, 150


def run(record: Record, options: argparse.Namespace) -> None:
    """XOR with every seed, then one generation of grown genomes on many rows."""
    torch.set_num_threads(1)
    found = [neat(fitness, 2, 1, rng=np.random.default_rng(seed), goal=SOLVED) for seed in range(options.seeds)]
    solved = [each for each in found if each.fitness >= SOLVED]
    record.say(f"XOR: seeds of {options.seeds} solved", len(solved), "", len(solved) >= MUST / SEEDS * options.seeds)
    record.say("generations, mean", float(np.mean([each.generations for each in solved])))
    record.say("generations, most", max(each.generations for each in solved))
    record.say("networks evaluated, mean", float(np.mean([each.evaluations for each in solved])))
    record.say("hidden nodes, mean", float(np.mean([len(each.genome.nodes) - 4 for each in solved])))
    genomes = restless(GENOMES)
    record.say("links of a genome, mean", float(np.mean([len(each.links) for each in genomes])))
    rows = np.random.default_rng(0).random((ROWS, 2)).astype(np.float32)
    ours, theirs, out, expected = [], [], np.empty(0), np.empty(0)
    for _ in range(3):  # a part of theirs each time, or it takes a minute
        began = time.perf_counter()
        with torch.no_grad():
            out = Grown(genomes)(torch.from_numpy(rows)).numpy()
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        expected = np.array([[net.activate(row) for row in rows.tolist()] for net in map(plain, genomes[:15])])
        theirs.append((time.perf_counter() - began) * GENOMES / 15)
    record.say("farthest apart of their outputs", float(np.abs(out[:15] - expected).max()), "", bool(
        np.allclose(out[:15], expected, atol=1e-4)
    ))  # fmt: skip
    ratio = statistics.median(theirs) / statistics.median(ours)
    record.say(f"{GENOMES} genomes on {ROWS} rows, made and run", 1e3 * statistics.median(ours), "ms")
    record.say("faster than neat-python", ratio, "x", ratio >= FASTER)
    alone = [paired(genome, rows) for genome in genomes[:15]]
    record.say(
        "faster than neat-python, one genome at a time",
        statistics.median(alone),
        "x",
        statistics.median(alone) >= FASTER,
    )


def fitness(genomes: Sequence[Genome]) -> list[float]:
    """(4 - the sum of absolute errors)^2, and the most there is once all four are right."""
    with torch.no_grad():
        out = Grown(genomes)(X)[:, :, 0]
    right = ((out > 0.5) == (Y > 0.5)).all(1)
    found: list[float] = torch.where(right, SOLVED, (4 - (out - Y).abs().sum(1)).square()).tolist()
    return found


def restless(count: int) -> list[Genome]:
    """Genomes as they are after many generations."""
    rng = np.random.default_rng(0)
    first = neat(lambda genomes: [0.0] * len(genomes), 2, 1, rng=rng, population=2, generations=1).genome
    known, found = Innovations(first), []
    for _ in range(count):
        genome = first
        for _ in range(25):
            genome = mutated(genome, known, Rates(node=0.15, link=0.15), rng)
        found.append(genome)
    return found


def plain(genome: Genome) -> FeedForwardNetwork:
    """The same network in neat-python; the node that is always 1 is the nodes' own bias there."""
    order, left = list(range(genome.inputs + 1)), [n for n in genome.nodes if n > genome.bias]
    into = {n: [link for link in genome.links if link.enabled and link.target == n] for n in left}
    while left:
        ready = [n for n in left if all(link.source in order for link in into[n])]
        order += ready
        left = [n for n in left if n not in ready]
    rows = []
    for node in order[genome.inputs + 1 :]:
        links = [(link.source, link.weight) for link in into[node] if link.source != genome.bias]
        bias = sum(link.weight for link in into[node] if link.source == genome.bias)
        rows.append((node, steep, sum, bias, 1.0, links))
    outputs = list(range(genome.bias + 1, genome.bias + 1 + genome.outputs))
    return FeedForwardNetwork(list(range(genome.inputs)), outputs, rows)


def steep(z: float) -> float:
    """The sigmoid of ours, held off from overflow as neat-python's own is."""
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, STEEP * z))))


def paired(genome: Genome, rows: np.ndarray) -> float:
    """Their seconds over ours to run one genome that is made."""
    ours, net, x = Grown([genome]), plain(genome), torch.from_numpy(rows)
    with torch.no_grad():
        ours(x)
        began = time.perf_counter()
        ours(x)
    between = time.perf_counter()
    for row in rows.tolist():
        net.activate(row)
    return (time.perf_counter() - between) / (between - began)


if __name__ == "__main__":
    main("growing", run, ("--seeds", {"type": int, "default": SEEDS}))
