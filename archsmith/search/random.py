"""Random search: the control that every other strategy must beat (Bergstra & Bengio 2012)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.search.fresh import fresh
from archsmith.space import Space
from archsmith.trial import Proposal, Strategy, Trial


def random_search() -> Strategy:
    """Points drawn from the space, none twice."""

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        seen = {trial.proposal.architecture for trial in history}
        proposals: list[Proposal] = []
        while len(proposals) < n:
            architecture = fresh(space, seen, lambda: space.sample(rng), rng)
            if architecture is None:
                break
            seen.add(architecture)
            proposals.append(Proposal(architecture))
        return proposals

    return propose
