"""Local search: White et al. 2021, "Exploring the Loss Landscape in Neural Architecture Search"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.search.fresh import different, fresh
from archsmith.search.order import standing, usable
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial


def local_search(objectives: Sequence[str], *, start: int = 1) -> Strategy:
    """The best so far and all that differ from it in one choice, until none of them is better; then again elsewhere.

    It begins at the best of `start` random points. Neighbours are tried in random order, and a better one is moved to
    at once; from a minimum it starts anew, and what was found before stays in the history.
    """

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        climb = since_restart(history)

        def choose(seen: set[Architecture]) -> Proposal | None:
            done = usable(climb, objectives)
            if len(climb) >= start and done:
                best = done[int(np.argmin(standing(done, objectives)))]
                around = [each for each in space.neighbours(best.proposal.architecture) if each not in seen]
                if around:
                    return Proposal(around[int(rng.integers(len(around)))], parents=(best.number,))
            point = fresh(space, seen, lambda: space.sample(rng), rng)
            begins = not climb or len(climb) >= start
            return None if point is None else Proposal(point, note={"restart": begins})

        return different(history, n, choose)

    return propose


def since_restart(history: Sequence[Trial]) -> Sequence[Trial]:
    """The trials of the present climb."""
    begins = [i for i, trial in enumerate(history) if (trial.proposal.note or {}).get("restart")]
    return history[begins[-1] :] if begins else history
