"""What TensorBoard, Weights & Biases and MLflow hold of a study is what the study holds."""

import logging
from pathlib import Path

import pytest

from archsmith.space import Architecture
from archsmith.study.mlflow_tracker import MLflow
from archsmith.study.tensorboard_tracker import TensorBoard
from archsmith.study.wandb_tracker import WeightsAndBiases
from archsmith.trial import Proposal, Trial

TRIALS = [
    Trial(
        0, Proposal(Architecture({"width": 8, "kind": "gelu"})), "complete", {"loss": 0.5, "latency_ms": 2.0}, 0, 1.5
    ),
    Trial(
        1, Proposal(Architecture({"width": 16, "kind": "relu"}), {"epochs": 3.0}), "complete", {"loss": 0.25}, 0, 2.5
    ),
    Trial(2, Proposal(Architecture({"width": 32, "kind": "relu"})), "failed", {}, 0, 0.5, "ValueError: too wide"),
]


def test_tensorboard_holds_each_value_over_the_trials(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = TensorBoard(tmp_path)
    for trial in TRIALS:
        tracker.on_trial(trial)
    tracker.close()
    read = reading.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(0, 0.5), (1, 0.25)]
    assert [(event.step, event.value) for event in read.Scalars("latency_ms")] == [(0, 2.0)]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"trial-0", "trial-1", "trial-2"}


def test_weights_and_biases_works_offline(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    tracker = WeightsAndBiases(tmp_path, mode="offline")
    for trial in TRIALS:
        tracker.on_trial(trial)
    tracker.close()
    wandb.teardown()  # its service writes the file in its own time, at the latest when the process ends
    written = list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(written) == 1
    content = written[0].read_bytes()
    assert b"latency_ms" in content and b"choice.width" in content and b"too wide" in content


def test_mlflow_holds_a_run_a_trial(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    tracker = MLflow(tmp_path)
    for trial in TRIALS:
        tracker.on_trial(trial)
    tracker.close()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("archsmith")
    runs = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name)
    assert [run.info.run_name for run in runs] == ["trial-0", "trial-1", "trial-2"]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED", "FAILED"]
    assert runs[0].data.metrics == {"loss": 0.5, "latency_ms": 2.0, "seconds": 1.5}
    assert runs[1].data.params == {
        "status": "complete",
        "choice.width": "16",
        "choice.kind": "relu",
        "fidelity.epochs": "3.0",
    }
    assert runs[2].data.params["error"] == "ValueError: too wide"
    tracker.on_trial(Trial(3, Proposal(Architecture({"0->1": "skip"})), "complete", {"val_error@12": 1.0}))
    written = next(run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "trial-3")
    assert written.data.params["choice.0-_1"] == "skip" and written.data.metrics["val_error_12"] == 1.0
    again = MLflow(tmp_path)  # a study that goes on
    again.on_trial(TRIALS[0])
    assert len(client.search_runs([experiment.experiment_id])) == 5
