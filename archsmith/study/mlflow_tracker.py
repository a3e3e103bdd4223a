"""Trials in MLflow: one experiment a study, a run a trial."""

from __future__ import annotations

import re
from pathlib import Path

import filelock

from archsmith.errors import BadInput, first_line
from archsmith.study.tracker import Tracker, told
from archsmith.trial import Trial


class MLflow(Tracker):
    """Writes to a tracking server by its URI, or to `mlflow.db` in the folder where MLFLOW_TRACKING_URI names none.

    Raises `BadInput` where the package mlflow (or mlflow-skinny) is not installed or the server cannot be reached.
    """

    def __init__(self, folder: str | Path, uri: str | None = None, experiment: str = "archsmith") -> None:
        try:
            import mlflow
        except ImportError as error:
            law = "the tracker mlflow needs its package"
            raise BadInput(law, "none", "", "pip install 'archsmith[mlflow]'") from error
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._error = mlflow.exceptions.MlflowException
        given = uri or (None if mlflow.environment_variables.MLFLOW_TRACKING_URI.is_set() else _file(folder))
        try:
            with filelock.FileLock(Path(folder) / "mlflow.lock"):  # two that begin together would both make the tables
                self._client = mlflow.MlflowClient(given)
                found = self._client.get_experiment_by_name(experiment)
                self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        except self._error as error:
            law = "MLflow's server must be there"
            raise BadInput(law, first_line(error), str(given or ""), "check MLFLOW_TRACKING_URI") from error

    def on_trial(self, trial: Trial) -> None:
        """A run with the trial's choices as parameters and its values as metrics."""
        run = self._client.create_run(self._experiment, run_name=f"trial-{trial.number}")
        for name, value in told(trial).items():
            self._client.log_param(run.info.run_id, _plain(name), value)
        for name, value in {"seconds": trial.seconds, **trial.values}.items():
            self._client.log_metric(run.info.run_id, _plain(name), value)
        self._client.set_terminated(run.info.run_id, "FINISHED" if trial.status == "complete" else "FAILED")


def _plain(name: str) -> str:
    """A name as MLflow allows it."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _file(folder: str | Path) -> str:
    return f"sqlite:///{(Path(folder) / 'mlflow.db').absolute()}"
