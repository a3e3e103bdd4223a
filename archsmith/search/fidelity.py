"""Multi-fidelity search: many architectures cheaply, few of them in full.

Successive halving (Jamieson & Talwalkar 2016) and Hyperband (Li et al. 2018) run in their asynchronous form (ASHA, Li
et al. 2020): whatever is among the best 1 / eta of its rung goes up, and where nothing is, a new architecture enters at
the bottom. BOHB (Falkner et al. 2018) draws those from a model of what was good.

r: resource of a rung (epochs, say), from the least to the most; eta: of how many one goes up.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import fresh
from archsmith.search.order import standing, usable
from archsmith.space import Architecture, Space, Value
from archsmith.trial import Proposal, Strategy, Trial

ETA = 3
GOOD = 0.15  # share of the trials that BOHB calls good (Falkner et al. 2018, section 4.2)
ASKED, RANDOM, FEWEST = 24, 1 / 3, 8  # candidates of a draw, share of draws at random, trials of a rung for a model
Draw = Callable[[Space, Sequence[Trial], set[Architecture], np.random.Generator], Architecture | None]


def rungs(least: float, most: float, eta: int = ETA) -> list[float]:
    """The resources of the rungs: `most`, and that over eta, eta^2 ... not below `least`, which is always the first.

    >>> rungs(12, 200), rungs(1, 9)
    ([12, 22.2, 66.7, 200], [1, 3.0, 9])
    """
    steps = int(math.log(most / least, eta) + 1e-9)
    found: list[float] = [round(most / eta**i, 1) for i in range(steps, 0, -1)]
    return [least, *(r for r in found if r > least * 1.01), most] if most > least else [most]


def asha(
    objectives: Sequence[str], *, resource: str = "epochs", levels: Sequence[float] = (), eta: int = ETA
) -> Strategy:
    """Asynchronous successive halving over these levels of the resource, ascending."""
    return _halving(objectives, resource, levels, eta, _at_random)


def hyperband(
    objectives: Sequence[str], *, resource: str = "epochs", levels: Sequence[float] = (), eta: int = ETA
) -> Strategy:
    """Asynchronous Hyperband: new architectures enter at each level in turn, the lower the more often (`brackets`)."""
    return _halving(objectives, resource, levels, eta, _at_random, bracketed=True)


def bohb(
    objectives: Sequence[str], *, resource: str = "epochs", levels: Sequence[float] = (), eta: int = ETA
) -> Strategy:
    """Hyperband whose new architectures come from what was good on the highest level that tells enough."""
    return _halving(objectives, resource, levels, eta, _by_density(objectives, resource), bracketed=True)


def _halving(
    objectives: Sequence[str], resource: str, levels: Sequence[float], eta: int, draw: Draw, bracketed: bool = False
) -> Strategy:
    if not levels or list(levels) != sorted(set(levels)) or levels[0] <= 0:
        law = f"multi-fidelity search needs levels of {resource} above 0, ascending"
        raise BadInput(law, f"{levels or 'none'}", "--strategy", "write them like asha:levels=[1,3,9]")
    if eta < 2:
        raise BadInput("of eta architectures one goes on, so it is 2 or more", f"{eta}", "--strategy", "take eta=3")
    sizes = brackets(levels, eta) if bracketed else [1]

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        proposals: list[Proposal] = []
        taken = {(level_of(t, resource), t.proposal.architecture) for t in history}
        entered = sum(1 for t in history if not t.proposal.parents)
        done = usable(history, objectives)
        while len(proposals) < n:
            found = _promotable(done, taken, objectives, resource, levels, eta)
            if found is None:
                point = draw(space, history, {architecture for _, architecture in taken}, rng)
                if point is not None:
                    level = levels[_bracket(entered, sizes)]
                    found, entered = Proposal(point, {resource: level}), entered + 1
                # All of the space has entered: what is left are evaluations in full.
                elif (found := _promotable(done, taken, objectives, resource, levels, 1)) is None:
                    break
            taken.add((found.fidelity[resource], found.architecture))
            proposals.append(found)
        return proposals

    return propose


def level_of(trial: Trial, resource: str) -> float:
    """The resource that a trial was given; infinite where none was said."""
    return trial.proposal.fidelity.get(resource, math.inf)


def _promotable(
    done: Sequence[Trial],
    taken: set[tuple[float, Architecture]],
    objectives: Sequence[str],
    resource: str,
    levels: Sequence[float],
    eta: int,
) -> Proposal | None:
    """From the highest rung that has one: what is among the best 1 / eta there and has not gone up."""
    for low, high in reversed(list(pairwise(levels))):
        rung = [trial for trial in done if level_of(trial, resource) == low]
        order = np.argsort(standing(rung, objectives), kind="stable")[: len(rung) // eta]
        for i in order.tolist():
            trial = rung[i]
            if (high, trial.proposal.architecture) not in taken:
                return Proposal(trial.proposal.architecture, {resource: high}, parents=(trial.number,))
    return None


def _bracket(entered: int, sizes: Sequence[int]) -> int:
    """The level at which the next new architecture enters: in turn as many at each as its bracket begins with.

    >>> [_bracket(i, [3, 2]) for i in range(8)]
    [0, 0, 0, 1, 1, 0, 0, 0]
    """
    place = entered % sum(sizes)
    return next(level for level in range(len(sizes)) if place < sum(sizes[: level + 1]))


def brackets(levels: Sequence[float], eta: int = ETA) -> list[int]:
    """How many architectures enter at each level, so that what enters there and goes up costs about the same for each.

    Where each level is eta times the one below, these are the sizes of Li et al. 2018, algorithm 1:
    ceil((s_max + 1) / (s + 1) * eta ** s), with s the levels above.

    >>> brackets([1, 3, 9, 27, 81]), brackets([12, 200])
    ([81, 34, 15, 8, 5], [3, 1])
    """
    costs = [sum(r / eta**i for i, r in enumerate(levels[at:])) for at in range(len(levels))]
    budget = costs[0] * eta ** (len(levels) - 1)
    return [max(1, int(budget / cost + 0.5)) for cost in costs]


def _at_random(
    space: Space, history: Sequence[Trial], seen: set[Architecture], rng: np.random.Generator
) -> Architecture | None:
    return fresh(space, seen, lambda: space.sample(rng), rng)


def _by_density(objectives: Sequence[str], resource: str) -> Draw:
    """The candidate with the largest share of values of good trials over that of the others (a TPE over choices)."""

    def draw(
        space: Space, history: Sequence[Trial], seen: set[Architecture], rng: np.random.Generator
    ) -> Architecture | None:
        done = usable(history, objectives)
        levels = sorted({level_of(trial, resource) for trial in done}, reverse=True)
        rung = next(
            (r for r in ([t for t in done if level_of(t, resource) == x] for x in levels) if len(r) >= FEWEST), []
        )
        if not rung or rng.random() < RANDOM:
            return _at_random(space, history, seen, rng)
        order = np.argsort(standing(rung, objectives), kind="stable")
        count = max(3, round(GOOD * len(rung)))
        good = [rung[i].proposal.architecture for i in order[:count]]
        rest = [rung[i].proposal.architecture for i in order[count:]] or good
        good_tally, rest_tally = tally(good), tally(rest)

        def share(point: Architecture) -> float:
            return density(space, good_tally, point) - density(space, rest_tally, point)

        def near() -> Architecture:
            points = [space.sample(rng) for _ in range(ASKED // 2)]
            points += [space.mutate(good[int(rng.integers(len(good)))], rng) for _ in range(ASKED // 2)]
            new = [point for point in points if point not in seen] or points
            return max(new, key=share)

        return fresh(space, seen, near, rng)

    return draw


def tally(points: Sequence[Architecture]) -> Mapping[str, Counter[Value]]:
    """How often each choice has each value."""
    found: dict[str, Counter[Value]] = defaultdict(Counter)
    for point in points:
        for name, value in point.items():
            found[name][value] += 1
    return found


def density(space: Space, counts: Mapping[str, Counter[Value]], at: Architecture) -> float:
    """Logarithm of the product over active choices of how often points take its value, each value once more for
    nothing (Laplace)."""
    total = 0.0
    for name, value in at.items():
        of = counts.get(name, Counter())
        total += math.log((of[value] + 1) / (of.total() + len(space.choices[name].values)))
    return total
