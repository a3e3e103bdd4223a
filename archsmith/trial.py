"""The one record everybody shares: what was proposed, what came of it, and who proposes and evaluates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from archsmith.space import JSON, Architecture, Space

Status = Literal["running", "complete", "failed", "pruned"]


@dataclass(frozen=True)
class Proposal:
    """An architecture to try and how thoroughly.

    `fidelity`: what limits the evaluation (epochs, share of the data); empty means full. `note`: a little JSON that the
    strategy gets back with the trial. `parents`: numbers of the trials it came from.
    """

    architecture: Architecture
    fidelity: Mapping[str, float] = field(default_factory=dict, hash=False)
    note: JSON = field(default=None, hash=False)
    parents: tuple[int, ...] = ()

    def to_json(self) -> JSON:
        """A JSON object."""
        return {
            "architecture": self.architecture.to_json(),
            "fidelity": dict(self.fidelity),
            "note": self.note,
            "parents": list(self.parents),
        }

    @classmethod
    def from_json(cls, data: JSON) -> Proposal:
        """The inverse of `to_json`."""
        architecture = Architecture.from_json(data["architecture"])
        return cls(architecture, dict(data["fidelity"]), data["note"], tuple(data["parents"]))


@dataclass(frozen=True)
class Trial:
    """What is known of one proposal. All values are minimised; only a complete trial has all objectives, finite.

    `seed`: the study's; `seconds`: wall time of the evaluation; `error`: why it failed.
    """

    number: int
    proposal: Proposal
    status: Status
    values: Mapping[str, float] = field(default_factory=dict, hash=False)
    seed: int = 0
    seconds: float = 0.0
    error: str = ""


class Strategy(Protocol):
    """Proposes what to try next from what has been tried. Pure: its only memory is the history."""

    def __call__(self, space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        """At most `n` proposals that are not in the history; fewer, or none, once every point has been tried."""
        ...


class Evaluator(Protocol):
    """Measures a proposal."""

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        """Name with unit -> value, all minimised. May raise: the trial then has failed with that reason."""
        ...


def whole(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that were evaluated in full: without a fidelity, or where all have one, at the highest there is that a
    trial has ended well at, if any has."""
    trials = [trial for trial in trials if trial.status == "complete"] or trials
    plain = [trial for trial in trials if not trial.proposal.fidelity]
    if plain:
        return plain
    most = {
        name: max(t.proposal.fidelity.get(name, 0.0) for t in trials) for t in trials for name in t.proposal.fidelity
    }
    return [trial for trial in trials if dict(trial.proposal.fidelity) == most]


def pareto(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """The complete trials that no other beats, ascending in the first objective; of equals the earliest.

    >>> def trial(number, ms, loss):
    ...     return Trial(number, Proposal(Architecture({})), "complete", {"ms": ms, "loss": loss})
    >>> [t.number for t in pareto([trial(0, 2, 1), trial(1, 1, 2), trial(2, 2, 2), trial(3, 2, 1)], ["ms", "loss"])]
    [1, 0]
    """
    able = [t for t in trials if t.status == "complete" and all(math.isfinite(t.values[o]) for o in objectives)]
    able.sort(key=lambda t: (*(t.values[o] for o in objectives), t.number))
    front: list[Trial] = []
    points = np.empty((0, len(objectives)))
    # In this order nothing later can dominate what is on the front already.
    for trial in able:
        point = np.array([trial.values[o] for o in objectives])
        if not (points <= point).all(axis=1).any():
            front.append(trial)
            points = np.vstack([points, point])
    return front
