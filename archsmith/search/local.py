"""Local search: White et al. 2021, "Exploring the Loss Landscape in Neural Architecture Search"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import different, fresh
from archsmith.search.order import standing, usable
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial


def local_search(objectives: Sequence[str], *, start: int = 1, eager: bool = True) -> Strategy:
    """The best so far and all that differ from it in one choice, until none of them is better; then again elsewhere.

    It begins at the best of `start` random points. Neighbours are tried in random order, and a better one is moved to
    at once; without `eager`, as in the paper, only once all are known, to the best of them. From a minimum it starts
    anew, and what was found before stays in the history.
    """
    if start < 1:
        raise BadInput("local search starts with at least 1 random point", str(start))

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        climb = since_restart(history)
        done = usable(climb, objectives)
        begun = len(climb) >= start and bool(done)
        here = (
            None
            if not begun
            else best_of(done, objectives)
            if eager
            else at_end(space, history, done[:start], objectives)
        )
        around = [] if here is None else list(space.neighbours(here.proposal.architecture))

        waiting = any(trial.status == "running" and trial.proposal.architecture in around for trial in climb)

        def choose(seen: set[Architecture]) -> Proposal | None:
            left = [each for each in around if each not in seen]
            if here is not None and left:
                return Proposal(left[int(rng.integers(len(left)))], parents=(here.number,))
            point = fresh(space, seen, lambda: space.sample(rng), rng)
            # Not while neighbours are being tried: one of them may be better.
            begins = not climb or (len(climb) >= start and not waiting)
            return None if point is None else Proposal(point, note={"restart": begins})

        return different(history, n, choose)

    return propose


def best_of(done: Sequence[Trial], objectives: Sequence[str]) -> Trial:
    """The first of the best."""
    return done[int(np.argmin(standing(done, objectives)))]


def at_end(space: Space, history: Sequence[Trial], first: Sequence[Trial], objectives: Sequence[str]) -> Trial:
    """Where steps from the best of the first trials, each to the best of all neighbours, have led."""
    done = usable(history, objectives)
    lost = dict(zip((trial.proposal.architecture for trial in done), standing(done, objectives).tolist(), strict=True))
    by_point = {trial.proposal.architecture: trial for trial in done}
    tried = {trial.proposal.architecture for trial in history if trial.status != "running"}
    here = best_of(first, objectives).proposal.architecture
    while True:
        around = list(space.neighbours(here))
        best = min((each for each in around if each in lost), key=lost.__getitem__, default=here)
        if any(each not in tried for each in around) or lost[best] >= lost[here]:
            return by_point[here]
        here = best


def since_restart(history: Sequence[Trial]) -> Sequence[Trial]:
    """The trials of the present climb."""
    begins = [i for i, trial in enumerate(history) if (trial.proposal.note or {}).get("restart")]
    return history[begins[-1] :] if begins else history
