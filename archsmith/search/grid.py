"""Points that are known beforehand: a grid, or a list of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fresh import different, fresh
from archsmith.space import Architecture, Space, Value
from archsmith.trial import Proposal, Strategy, Trial


def grid_search(*, budget: int = 100) -> Strategy:
    """As many values of each choice as `budget` points allow; after the last of them, points that are left, at random.

    Combinations that the space does not allow are passed over; what a choice that is not active takes makes no
    difference.
    """
    if budget < 1:
        raise BadInput("a grid needs a budget of at least 1", str(budget))

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        points = _whole_grid(space, budget)

        def choose(seen: set[Architecture]) -> Architecture | None:
            left = next((point for point in points if point not in seen), None)
            return left if left is not None else fresh(space, seen, lambda: space.sample(rng), rng)

        return different(history, n, choose)

    return propose


def listed(points: Sequence[Architecture]) -> Strategy:
    """These points, in their order, and no others."""

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        return different(history, n, lambda seen: next((point for point in points if point not in seen), None))

    return propose


@lru_cache(maxsize=4)
def _whole_grid(space: Space, budget: int) -> tuple[Architecture, ...]:
    """The points of the grid, each once: the same for every proposal of a study."""
    return tuple(dict.fromkeys(grid(space, budget)))


def grid(space: Space, budget: int) -> Iterator[Architecture]:
    """The points of the grid that the space allows.

    >>> from archsmith.space import Choice
    >>> [dict(point) for point in grid(Space({"a": Choice([1, 2, 3, 4, 5]), "b": Choice(["x"])}), 3)]
    [{'a': 1, 'b': 'x'}, {'a': 3, 'b': 'x'}, {'a': 5, 'b': 'x'}]
    """
    names = list(space.choices)
    most = {name: len(space.choices[name].values) for name in names}
    levels = dict.fromkeys(names, 1)
    total = 1
    # One more value of the choice that has the fewest yet, as long as the product stays within the budget.
    while more := [n for n in names if levels[n] < most[n] and total // levels[n] * (levels[n] + 1) <= budget]:
        name = min(more, key=levels.__getitem__)
        total = total // levels[name] * (levels[name] + 1)
        levels[name] += 1
    picked = []
    for name in names:
        at = np.linspace(0, most[name] - 1, levels[name]).round().astype(int) if levels[name] > 1 else [0]
        picked.append([space.choices[name].values[index] for index in at])
    for values in product(*picked):
        point = active(space, dict(zip(names, values, strict=True)))
        if point in space:
            yield point


def active(space: Space, values: dict[str, Value]) -> Architecture:
    """The values of the choices that are active."""
    found: dict[str, Value] = {}
    for name in space.order:
        when = space.choices[name].when
        if when is None or (when.name in found and when.holds(found[when.name])):
            found[name] = values[name]
    return Architecture(found)
