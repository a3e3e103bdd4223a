"""Mirror trials elsewhere (TensorBoard, Weights & Biases, MLflow): the hooks, none of which does anything here."""

from __future__ import annotations

from typing import Protocol

from archsmith.space import Value
from archsmith.trial import Trial


class Tracker(Protocol):
    """Subclass it and override what is wanted. What a hook raises stops the study.

    A study tells each trial once, as `run(..., on_trial=tracker.on_trial)`; who made a tracker closes it.
    """

    def on_trial(self, trial: Trial) -> None:
        """A trial has ended; what it became is in the store already."""

    def close(self) -> None:
        """No trial will follow."""


def told(trial: Trial) -> dict[str, Value]:
    """What all trackers say of a trial beside its values: its choices, its fidelity, how it ended.

    >>> from archsmith.space import Architecture
    >>> from archsmith.trial import Proposal
    >>> told(Trial(0, Proposal(Architecture({"width": 8}), {"epochs": 3.0}), "complete"))
    {'status': 'complete', 'choice.width': 8, 'fidelity.epochs': 3.0}
    """
    proposal = trial.proposal
    found: dict[str, Value] = {"status": trial.status, **({"error": trial.error} if trial.error else {})}
    found |= {f"choice.{name}": value for name, value in proposal.architecture.items()}
    return found | {f"fidelity.{name}": value for name, value in proposal.fidelity.items()}
