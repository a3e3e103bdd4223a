"""Genetic algorithm: Holland 1975; the elitist (mu + 1) form of it, with its three operators as arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import different, fresh, near
from archsmith.search.order import standing, usable
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

T = TypeVar("T", bound=Callable[..., object])
# (place of each living trial, 0 the best) -> index of a parent
Selection = Callable[[np.ndarray, np.random.Generator], int]
Crossover = Callable[[Space, Architecture, Architecture, np.random.Generator], Architecture]
Mutation = Callable[[Space, Architecture, np.random.Generator], Architecture]


def tournament(place: np.ndarray, rng: np.random.Generator, size: int = 3) -> int:
    """The best of `size` drawn at random."""
    return int(min(rng.integers(len(place), size=size).tolist(), key=place.__getitem__))


def roulette(place: np.ndarray, rng: np.random.Generator) -> int:
    """With a chance that falls linearly with the place (ranking selection, Baker 1985)."""
    chance = len(place) - place.astype(float)
    return int(rng.choice(len(place), p=chance / chance.sum()))


def uniform(space: Space, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
    """Each choice of either parent (Syswerda 1989)."""
    return space.crossover(a, b, rng)


def bits(space: Space, child: Architecture, rng: np.random.Generator, changes: float = 1.0) -> Architecture:
    """So many single changes on average, one at least (a Poisson number)."""
    for _ in range(max(1, int(rng.poisson(changes)))):
        child = space.mutate(child, rng)
    return child


SELECTIONS: dict[str, Selection] = {"tournament": tournament, "roulette": roulette}
CROSSOVERS: dict[str, Crossover] = {"uniform": uniform}
MUTATIONS: dict[str, Mutation] = {"one": partial(bits, changes=0.0), "poisson": bits}


def genetic_algorithm(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    population: int | None = None,
    selection: str | Selection = "tournament",
    crossover: str | Crossover = "uniform",
    mutation: str | Mutation = "one",
    crossed: float = 0.5,
    limits: Mapping[str, float] | None = None,
) -> Strategy:
    """The best `population` (mu) trials live; a child has two parents with the chance `crossed`, and is then mutated.

    mu is the root of twice the budget unless told: 14 for 100, 20 for 200. The operators are names or functions.
    `limits`: value -> the most that it may be; what keeps them all is better than what does not.
    """
    alive = max(4, round((2 * budget) ** 0.5)) if population is None else population
    if budget < 1 or alive < 2 or not 0 <= crossed <= 1:
        raise BadInput("a genetic algorithm needs two parents and a chance of 0 to 1", f"{alive}, {crossed}")
    select = named(selection, SELECTIONS, "selection")
    cross = named(crossover, CROSSOVERS, "crossover")
    mutate = named(mutation, MUTATIONS, "mutation")

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        done = usable(history, objectives)
        order = np.lexsort((standing(done, objectives), exceeded(done, limits or {})))[:alive]
        living, place = [done[i] for i in order], np.arange(len(order))

        def choose(seen: set[Architecture]) -> Proposal | None:
            if len(living) < alive:
                point = fresh(space, seen, lambda: space.sample(rng), rng)
                return None if point is None else Proposal(point)
            mother, father = (living[select(place, rng)] for _ in range(2))
            one, other = mother.proposal.architecture, father.proposal.architecture
            both = mother is not father and rng.random() < crossed

            child = cross(space, one, other, rng) if both else one
            point = near(space, seen, child, rng, lambda child: mutate(space, child, rng))
            parents = (mother.number, father.number) if both else (mother.number,)
            return None if point is None else Proposal(point, parents=parents)

        return different(history, n, choose)

    return propose


def exceeded(done: Sequence[Trial], limits: Mapping[str, float]) -> np.ndarray:
    """(n,) by how much the trials break limits, in shares of each limit's size; 0 for those that keep all."""
    if not limits:
        return np.zeros(len(done))
    return np.array(
        [
            sum(max(0.0, (t.values.get(n, np.inf) - most) / max(abs(most), 1e-12)) for n, most in limits.items())
            for t in done
        ]
    )


def named(given: str | T, known: dict[str, T], what: str) -> T:
    """The function itself, or the one of this name."""
    if not isinstance(given, str):
        return given
    if given not in known:
        raise BadInput(f"a {what} is one that is known", repr(given), "", f"there are: {', '.join(known)}")
    return known[given]
