"""Ray's workers give what this process gives, and one that dies is tried once more."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from kill_study import OBJECTIVES, SPACE, Evaluate

pytest.importorskip("ray")

from archsmith.errors import BadInput
from archsmith.search import random_search
from archsmith.space import Choice, Space
from archsmith.study import Executor, Inline, run
from archsmith.study.ray_workers import RayWorkers
from archsmith.trial import Proposal

HERE = str(Path(__file__).parent)


def values(executor: Executor, store: Path) -> dict[int, object]:
    history = run(
        SPACE, random_search(), Evaluate(), trials=12, store=store, seed=1, objectives=OBJECTIVES, executor=executor
    )
    return {t.number: (t.proposal.architecture, t.values, t.status, t.error) for t in history}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", HERE)  # Ray's workers are processes of their own
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def test_a_cluster_gives_the_values_that_this_process_gives(tmp_path: Path) -> None:
    here = values(Inline(), tmp_path / "here.journal")
    assert values(RayWorkers(1), tmp_path / "one.journal") == here
    many = values(RayWorkers(3), tmp_path / "three.journal")
    assert many == here  # random search does not look at what came out, so the order cannot matter


class Deadly:
    """Kills its worker at 3, and at 5 the first time."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        a = int(proposal.architecture["a"])
        first = a == 5 and not self.mark.exists()
        if first:
            self.mark.touch()
        if first or a == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": float(a)}


def test_a_worker_that_dies_takes_down_its_trial_alone(tmp_path: Path) -> None:
    space = Space({"a": Choice(range(1, 7))})
    history = run(
        space, random_search(), Deadly(tmp_path / "mark"), trials=6, store=tmp_path / "s.journal", seed=0,
        objectives=["loss"], executor=RayWorkers(2),
    )  # fmt: skip
    dead = {trial.proposal.architecture["a"] for trial in history if trial.status == "failed"}
    assert len(history) == 6 and dead == {3} and (tmp_path / "mark").exists()
    assert next(t.error for t in history if t.proposal.architecture["a"] == 3).endswith("twice")


def test_a_cluster_that_is_not_there_is_said_on_one_line() -> None:
    with pytest.raises(BadInput, match="a Ray cluster must be there"):
        RayWorkers(2, address="127.0.0.1:1")
