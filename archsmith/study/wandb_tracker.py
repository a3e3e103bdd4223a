"""Trials in Weights & Biases: one run a study, a step a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from archsmith.errors import BadInput, first_line
from archsmith.study.tracker import Tracker, told
from archsmith.trial import Trial

Mode = Literal["online", "offline", "disabled", "shared"]


class WeightsAndBiases(Tracker):
    """Logs to a project; with `mode="offline"`, or WANDB_MODE=offline, into the folder alone, for `wandb sync` later.

    Raises `BadInput` where the package wandb is not installed or nobody has logged in.
    """

    def __init__(self, folder: str | Path, project: str = "archsmith", mode: Mode | None = None) -> None:
        try:
            import wandb
        except ImportError as error:
            law = "the tracker wandb needs its package"
            raise BadInput(law, "none", "", "pip install 'archsmith[wandb]'") from error
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            self._run = wandb.init(project=project, dir=str(folder), mode=mode, settings=wandb.Settings(silent=True))
        except wandb.errors.Error as error:
            law, remedy = "Weights & Biases must let a run begin", "run `wandb login`, or set WANDB_MODE=offline"
            raise BadInput(law, first_line(error), "", remedy) from error
        self._run.define_metric("*", step_metric="trial")  # trials end in any order, and W&B's own steps only rise

    def on_trial(self, trial: Trial) -> None:
        """The trial's values and choices over its number."""
        self._run.log({"seconds": trial.seconds, **told(trial), **trial.values, "trial": trial.number})

    def close(self) -> None:
        """End the run."""
        self._run.finish()
