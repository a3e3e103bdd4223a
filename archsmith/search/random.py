"""Random search: the control that every other strategy must beat (Bergstra & Bengio 2012)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.search.fresh import different, fresh
from archsmith.space import Space
from archsmith.trial import Proposal, Strategy, Trial


def random_search() -> Strategy:
    """Points drawn from the space, none twice."""

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        return different(history, n, lambda seen: fresh(space, seen, lambda: space.sample(rng), rng))

    return propose
