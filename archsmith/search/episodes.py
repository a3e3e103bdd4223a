"""An architecture as a sequence of decisions, for learners that make one after another (Q-networks, controllers).

Every choice of the space is one step, parents first; one that is not active is passed over. V: the largest number of
values of any choice; T: number of choices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from archsmith.space import Architecture, Space, Value


class Episodes:
    """The steps of a space: how many values each has, and how an architecture goes through them."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.names = space.order
        self.sizes = [len(space.choices[name].values) for name in self.names]
        self.most = max(self.sizes, default=1)

    @property
    def steps(self) -> int:
        """T."""
        return len(self.names)

    def actions(self, architecture: Architecture) -> list[int]:
        """(T,) index of the value of each choice, -1 where it is not active."""
        found = []
        for name in self.names:
            index = self.space.choices[name].index(architecture[name]) if name in architecture else None
            found.append(-1 if index is None else index)
        return found

    def play(self, pick: Callable[[int, list[int]], int]) -> list[int]:
        """An episode: `pick(step, actions so far)` gives the index of a value of each active choice in turn."""
        values: dict[str, Value] = {}
        actions: list[int] = []
        for step, name in enumerate(self.names):
            when = self.space.choices[name].when
            if when is not None and not (when.name in values and when.holds(values[when.name])):
                actions.append(-1)
                continue
            actions.append(pick(step, actions))
            values[name] = self.space.choices[name].values[actions[-1]]
        return actions

    def architecture(self, actions: list[int]) -> Architecture:
        """What an episode made; where the space does not allow it, the nearest that it does."""
        chosen = {n: self.space.choices[n].values[a] for n, a in zip(self.names, actions, strict=True) if a >= 0}
        found = Architecture(chosen)
        if found in self.space:
            return found
        return self.space.decode(self.space.encode(chosen))

    def mask(self) -> Tensor:
        """(T, V) bool: which values there are."""
        return torch.arange(self.most)[None] < torch.tensor(self.sizes)[:, None]


def prefixes(actions: list[int], width: int) -> Iterator[Tensor]:
    """(T x width,) float32 before each step: one-hot of the actions so far."""
    so_far = torch.zeros(len(actions), width)
    for step, action in enumerate(actions):
        yield so_far.flatten().clone()
        if action >= 0:
            so_far[step, action] = 1.0
