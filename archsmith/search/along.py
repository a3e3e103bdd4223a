"""Walk along a front that was computed beforehand: its ends first, then always the widest gap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith.search.exact import Option, Pick, exact_front
from archsmith.search.fresh import different, fresh
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial


def along_front(groups: Sequence[Sequence[Option]], resolution: float = 1e-3) -> Strategy:
    """The points of `exact_front(groups)` in order of cost spread, so that however few are tried, they cover the front.

    What the space does not allow is left out. After the last one, random single changes of points of the front.
    """
    picks = in_spread(exact_front(groups, resolution))
    front = list(dict.fromkeys(Architecture(pick.values) for pick in picks))

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        valid = [each for each in front if each in space]

        def near() -> Architecture:
            return space.mutate(valid[rng.integers(len(valid))], rng) if valid else space.sample(rng)

        def choose(seen: set[Architecture]) -> Architecture | None:
            return next((each for each in valid if each not in seen), None) or fresh(space, seen, near, rng)

        return different(history, n, choose)

    return propose


def in_spread(front: Sequence[Pick]) -> list[Pick]:
    """The cheapest, the dearest, then always the point whose cost is farthest from all before it.

    >>> [pick.cost for pick in in_spread([Pick({}, -c, c, ()) for c in (0.0, 1.0, 5.0, 10.0)])]
    [0.0, 10.0, 5.0, 1.0]
    """
    cost = np.array([pick.cost for pick in front])
    far = np.full(len(front), np.inf)
    order: list[int] = []
    at = 0
    for _ in front:
        order.append(at)
        far = np.minimum(far, np.abs(cost - cost[at]))
        far[order] = -1.0
        at = int(far.argmax())
    return [front[i] for i in order]
