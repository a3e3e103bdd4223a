"""What the original is asked: as many real and made rows as the plan says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from archsmith.evaluate.trained import Teacher
from archsmith.jobs import remember
from archsmith.jobs.case import Case, Request, prepare
from archsmith.jobs.plan import Plan
from archsmith.jobs.stages import Work
from archsmith.model import Anatomy
from archsmith.report.terminal import Progress
from archsmith.study import RunDirectory


@pytest.fixture
def small_case(kind_bert: Path, texts: dict[str, Path]) -> Case:
    request = Request(str(kind_bert), "text-classification", str(texts["train"]), runtime="pytorch", length=16)
    return prepare(request)


def test_the_rows_that_are_asked_are_those_of_the_plan(
    small_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answering(work: Work, measured: Any) -> Any:
        def call(inputs: Mapping[str, Tensor]) -> np.ndarray:
            return np.zeros((len(inputs["input_ids"]), 2), np.float32)

        return call

    monkeypatch.setattr(remember, "answering", answering)
    real = small_case.task.size("train")
    plan = Plan(label_rows=50, extra_rows=200, trials=2, trial_seconds=1.0, final_seconds=10.0, checks=2)
    with RunDirectory.create(tmp_path / "run", {}) as run:
        work = Work(small_case, run, Progress())
        teacher = Teacher(small_case.model, Anatomy({}, {}, ()), small_case.task)
        found = remember.remember(work, teacher, [], plan)
    assert found.outputs is not None
    assert found.task.size("train") == real + 200 == len(found.outputs)
    answered = np.isfinite(found.outputs).all(axis=1)
    assert answered[:real].sum() == 50
    assert answered[real:].all()
