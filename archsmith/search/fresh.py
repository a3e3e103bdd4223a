"""Proposals that have not been made before, for every strategy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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


def onward(start: Architecture, step: Callable[[Architecture], Architecture]) -> Callable[[], Architecture]:
    """Draws by steps, each from where the last one led: around a point whose surroundings are known they soon leave
    what has been seen, where one step from the same point would be drawn in vain ever more often."""
    at = start

    def draw() -> Architecture:
        nonlocal at
        at = step(at)
        return at

    return draw


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
