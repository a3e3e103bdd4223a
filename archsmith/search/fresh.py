"""Proposals that have not been made before, for every strategy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Trial

DRAWS = 12  # before a search whose surroundings are known looks elsewhere


def fresh(
    space: Space, seen: Collection[Architecture], draw: Callable[[], Architecture], rng: np.random.Generator
) -> Architecture | None:
    """An architecture that is not in `seen`: drawn, if `DRAWS` draws give one, else any other; None once all are."""
    for attempt in (draw, lambda: space.sample(rng)):
        for _ in range(DRAWS):
            architecture = attempt()
            if architecture not in seen:
                return architecture
    # Of one point more than have been seen, one at least is new.
    return next((point for point in islice(space.points(rng), len(seen) + 1) if point not in seen), None)


def near(
    space: Space,
    seen: Collection[Architecture],
    start: Architecture,
    rng: np.random.Generator,
    step: Callable[[Architecture], Architecture] | None = None,
) -> Architecture | None:
    """An architecture that is not in `seen`, one step (a mutation, unless told) from `start`; where the step leads to
    what is known, a neighbour of `start` that is not; where there is none, further steps from where the first led.
    None once all are seen."""
    at = start

    def draw() -> Architecture:
        nonlocal at
        at = space.mutate(at, rng) if step is None else step(at)
        return at

    first = draw()
    if first not in seen:
        return first
    left = [point for point in _around(space, start) if point not in seen]
    return left[int(rng.integers(len(left)))] if left else fresh(space, seen, draw, rng)


@lru_cache(maxsize=256)
def _around(space: Space, point: Architecture) -> tuple[Architecture, ...]:
    """The neighbours of a point, remembered: a search asks for those of a good one again and again."""
    return tuple(space.neighbours(point))


def different(
    history: Sequence[Trial], n: int, choose: Callable[[set[Architecture]], Architecture | Proposal | None]
) -> list[Proposal]:
    """`n` proposals, each of what `choose` makes of the architectures seen so far; fewer where it gives None."""
    seen = {trial.proposal.architecture for trial in history}
    proposals: list[Proposal] = []
    while len(proposals) < n and (found := choose(seen)) is not None:
        proposal = found if isinstance(found, Proposal) else Proposal(found)
        seen.add(proposal.architecture)
        proposals.append(proposal)
    return proposals
