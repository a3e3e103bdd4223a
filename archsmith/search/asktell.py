"""Optimisers of other libraries that are asked and told, as strategies: what they were told is the history.

Such an optimiser keeps its state to itself. Here it is begun anew from its seed, which the proposals' notes carry, and
led through the history; the last one is kept, and goes on where it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from archsmith.search.fresh import fresh
from archsmith.search.order import is_usable
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

ROUNDS = 40  # of batches in a row that have all been tried, after which a point is drawn at random
Values = tuple[float, ...]


class AskTell(Protocol):
    """An optimiser: a batch of architectures, then the values of all of them."""

    def ask(self) -> list[Architecture]:
        """The next batch, the same until it is told."""
        ...

    def tell(self, values: Sequence[Values | None]) -> None:
        """The values of the batch, minimised; None for what failed."""
        ...


def asked_and_told(objectives: Sequence[str], begin: Callable[[Space, int], AskTell]) -> Strategy:
    """A strategy that proposes what an optimiser asks for; `begin(space, seed)` makes a fresh one."""
    kept: dict[tuple[str, int], tuple[AskTell, list[tuple[list[Architecture], list[Values | None]]]]] = {}

    def led(space: Space, seed: int, known: dict[Architecture, Values | None]) -> list[Architecture]:
        """The batch that the history has led the optimiser to."""
        optimiser, told = kept.get((space.hash, seed), (None, []))
        if optimiser is None or any([known.get(each, ()) for each in batch] != values for batch, values in told):
            optimiser, told = begin(space, seed), []
            kept.clear()
            kept[space.hash, seed] = optimiser, told
        batch = optimiser.ask()
        for _ in range(len(known) + ROUNDS):  # those that led here, and then some
            if not batch or not all(each in known for each in batch):
                break
            values = [known[each] for each in batch]
            optimiser.tell(values)
            told.append((batch, values))
            batch = optimiser.ask()
        return batch

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        notes = [trial.proposal.note for trial in history if isinstance(trial.proposal.note, dict)]
        seed = next((int(note["seed"]) for note in notes if "seed" in note), int(rng.integers(2**31)))
        ended = [trial for trial in history if trial.status != "running"]
        known = {t.proposal.architecture: _values(t, objectives) for t in ended}
        seen = {trial.proposal.architecture for trial in history}
        able = any(len(choice.values) > 1 for choice in space.choices.values())  # else there is nothing to optimise
        asked = led(space, seed, known) if able else []
        found = list(dict.fromkeys(each for each in asked if each not in seen))[:n]
        seen.update(found)
        while len(found) < n and (other := fresh(space, seen, lambda: space.sample(rng), rng)) is not None:
            found.append(other)
            seen.add(other)
        return [Proposal(each, note={"seed": seed}) for each in found]

    return propose


def _values(trial: Trial, objectives: Sequence[str]) -> Values | None:
    return tuple(trial.values[name] for name in objectives) if is_usable(trial, objectives) else None
