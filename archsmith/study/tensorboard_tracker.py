"""Trials in TensorBoard: each value over the trials, and the table of hyper-parameters."""

from __future__ import annotations

from pathlib import Path

from archsmith.errors import BadInput
from archsmith.study.tracker import Tracker, told
from archsmith.trial import Trial


class TensorBoard(Tracker):
    """Writes event files to a folder, which `tensorboard --logdir FOLDER` shows.

    Raises `BadInput` where the package tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            law = "the tracker tensorboard needs its package"
            raise BadInput(law, "none", "", "pip install 'archsmith[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder))

    def on_trial(self, trial: Trial) -> None:
        """A point of each value's curve, and a row of the table."""
        for name, value in trial.values.items():
            self._writer.add_scalar(name, value, trial.number)
        results = {f"result/{name}": value for name, value in trial.values.items()}
        self._writer.add_hparams(told(trial), results, run_name=f"trial-{trial.number}")
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
