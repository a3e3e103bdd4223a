"""Topologies that grow: genomes line up, networks compute what their links say, and XOR is solved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.build.genome import STEEP, Genome, Grown, Link, from_inputs
from archsmith.errors import BadInput
from archsmith.search.neat import (
    Innovations,
    Rates,
    _rounded,
    crossed,
    distance,
    grouped,
    mutated,
    neat,
    with_link,
    with_node,
)

RESTLESS = Rates(node=0.6, link=0.6)
X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])


def by_hand(genome: Genome, row: list[float]) -> list[float]:
    """One row through one genome, node by node, as soon as all that leads to a node is known."""
    known = dict(enumerate([*row, 1.0]))
    waiting = [node for node in genome.nodes if node not in known]
    while waiting:
        for node in list(waiting):
            into = [link for link in genome.links if link.enabled and link.target == node]
            if all(link.source in known for link in into):
                total = sum(link.weight * known[link.source] for link in into)
                known[node] = 1 / (1 + np.exp(-STEEP * total))
                waiting.remove(node)
    return [known[genome.inputs + 1 + out] for out in range(genome.outputs)]


def grown(seed: int, steps: int, innovations: Innovations | None = None) -> Genome:
    rng = np.random.default_rng(seed)
    genome = from_inputs(2, 2, rng.uniform(-1, 1, 6).tolist())
    known = innovations or Innovations(genome)
    for _ in range(steps):
        genome = mutated(genome, known, RESTLESS, rng)
    return genome


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 25))
def test_what_grows_makes_no_cycle_and_computes_what_its_links_say(seed: int, steps: int) -> None:
    genome, other = grown(seed, steps), grown(seed + 1, steps // 2)
    numbers = [link.number for link in genome.links]
    assert numbers == sorted(set(numbers)) and Genome.from_json(genome.to_json()) == genome
    with torch.no_grad():
        out = Grown([genome, other])(X)
    for rows, each in zip(out, (genome, other), strict=True):
        expected = [by_hand(each, row) for row in X.tolist()]
        assert np.allclose(rows.numpy(), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 20))
def test_a_child_has_the_links_of_the_better_with_weights_of_either(seed: int, steps: int) -> None:
    known = Innovations(from_inputs(2, 2, [0.0] * 6))
    better, worse = grown(seed, steps, known), grown(seed + 1, steps, known)
    child = crossed(better, worse, Rates(), np.random.default_rng(seed))
    assert [link.number for link in child.links] == [link.number for link in better.links]
    of_worse = {link.number: link for link in worse.links}
    for mine, theirs in zip(child.links, better.links, strict=True):
        match = of_worse.get(mine.number, theirs)
        assert mine.weight in (theirs.weight, match.weight)
        assert mine.enabled == theirs.enabled or not (theirs.enabled and match.enabled)
    assert max(child.levels.values()) >= 1  # and no cycle


def test_the_same_change_has_the_same_number_wherever_it_comes_up() -> None:
    first = from_inputs(1, 1, [1.0, 1.0])
    known, rng = Innovations(first), np.random.default_rng(0)
    only = replace(first, links=(first.links[0], replace(first.links[1], enabled=False)))
    one, other = with_node(only, known, rng), with_node(only, known, rng)
    assert one == other and one.nodes == (0, 1, 2, 3)
    assert [(link.source, link.target, link.weight, link.enabled) for link in one.links] == [
        (0, 2, 1.0, False), (1, 2, 1.0, False), (0, 3, 1.0, True), (3, 2, 1.0, True),
    ]  # fmt: skip
    again = with_node(replace(one, links=(replace(one.links[0], enabled=True), *one.links[1:2])), known, rng)
    assert again.nodes[-1] == 3
    assert with_link(one, known, Rates(), rng).links[-1].source == 1  # the one pair that is left: the bias and node 3


def test_the_distance_is_the_formula() -> None:
    a = Genome(1, 1, (Link(0, 0, 2, 1.0), Link(1, 1, 2, 2.0), Link(4, 0, 5, 0.0)))
    b = Genome(1, 1, (Link(0, 0, 2, 0.5), Link(2, 0, 3, 1.0), Link(5, 3, 2, 1.0), Link(6, 1, 3, 1.0)))
    # Shared: 0 (differing by 0.5). Excess: 5, 6. Disjoint: 1, 2, 4. Both small, so L = 1.
    assert distance(a, b, Rates()) == pytest.approx(2 + 3 + 0.4 * 0.5)
    assert distance(a, b, Rates()) == distance(b, a, Rates()) and distance(a, a, Rates()) == 0.0


def test_unlike_genomes_form_species() -> None:
    alike = [from_inputs(1, 1, [0.1 * i, 0.0]) for i in range(4)]
    far = replace(alike[0], links=(*alike[0].links, *(Link(9 + i, 0, 9 + i, 1.0) for i in range(5))))
    assert [each.members for each in grouped([*alike, far], [], Rates())] == [[0, 1, 2, 3], [4]]


def test_shares_are_rounded_to_their_total() -> None:
    assert _rounded(np.array([2.5, 3.3, 4.2]), 10) == [3, 3, 4]


def test_xor_is_solved_and_found_again_under_its_seed() -> None:
    def fitness(genomes: list[Genome]) -> list[float]:
        with torch.no_grad():
            out = Grown(genomes)(X)[:, :, 0]
        right = torch.tensor([0.0, 1.0, 1.0, 0.0])
        solved = ((out > 0.5) == (right > 0.5)).all(1)
        found: list[float] = torch.where(solved, 16.0, (4 - (out - right).abs().sum(1)).square()).tolist()
        return found

    one, again = (neat(fitness, 2, 1, rng=np.random.default_rng(3), goal=16.0) for _ in range(2))  # type: ignore[arg-type]
    assert one == again and one.fitness == 16.0 and one.generations <= 100
    assert len(one.genome.nodes) > 4  # no network without hidden nodes computes XOR
    assert one.evaluations == 150 * one.generations and len(one.species) == one.generations


def test_what_was_grown_can_be_trained() -> None:
    module = Grown([grown(0, 12)])
    before = module(X).detach()
    module(X).sum().backward()
    assert module.weights.grad is not None and not module.weights.grad[module.there == 0].any()
    assert module.weights.grad[module.there == 1].any()
    assert torch.equal(module(X), before)


def test_bad_input_is_said() -> None:
    with pytest.raises(BadInput, match="no cycle"):
        Grown([Genome(1, 1, (Link(0, 2, 3, 1.0), Link(1, 3, 2, 1.0)))])
    with pytest.raises(BadInput, match="into an input"):
        Grown([Genome(1, 1, (Link(0, 2, 0, 1.0),))])
    with pytest.raises(BadInput, match="at least one genome"):
        Grown([])
    with pytest.raises(BadInput, match="one number a genome"):
        neat(lambda genomes: [1.0], 1, 1, rng=np.random.default_rng(0))
    with pytest.raises(BadInput, match="finite"):
        neat(lambda genomes: [float("nan")] * len(genomes), 1, 1, rng=np.random.default_rng(0))
    with pytest.raises(BadInput, match="two genomes"):
        neat(lambda genomes: [], 1, 1, rng=np.random.default_rng(0), population=1)
    with pytest.raises(BadInput, match="inputs, outputs and links"):
        Genome.from_json({"inputs": 1})
    half = neat(
        lambda genomes: [float("nan"), *range(1, len(genomes))], 1, 1, rng=np.random.default_rng(0), generations=2
    )
    assert half.fitness == 149.0
