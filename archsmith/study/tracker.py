"""Mirror trials elsewhere (TensorBoard, Weights & Biases, MLflow): the hooks, none of which does anything here."""

from __future__ import annotations

from typing import Protocol

from archsmith.trial import Trial


class Tracker(Protocol):
    """Subclass it and override what is wanted. What a hook raises stops the study."""

    def on_trial(self, trial: Trial) -> None:
        """A trial has ended; what it became is in the store already."""

    def close(self) -> None:
        """No trial will follow."""
