"""Before training: what is left of the minutes as counts, and the original's answers to the texts it has time for."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from archsmith.cost import arrays
from archsmith.evaluate.trained import Teacher
from archsmith.jobs.plan import Plan, make_plan
from archsmith.jobs.serving import reopened
from archsmith.jobs.stages import Work, served_best
from archsmith.report.result import Variant
from archsmith.space import JSON
from archsmith.tasks.answer import Call, answers, load_array, save_array


def plan(work: Work, measured: Sequence[Variant]) -> Plan:
    """What is left of the minutes as counts, printed."""

    def make(folder: Path) -> JSON:
        ship = work.run.seconds().get("original", 60.0)
        return make_plan(work.case, answering(work, measured), work.spent, ship).to_json()

    made = Plan(**work.stage("plan", make))
    work.progress.plan(made.to_json())
    return made


def remember(work: Work, teacher: Teacher, measured: Sequence[Variant], made: Plan) -> Teacher:
    """The teacher with its answers to the train rows (and made rows) that the plan has time for.

    They are asked of the original's fastest file that keeps its quality, int8 aside: what is learnt is its very shades.
    """
    if not made.trains:
        return teacher
    case = work.case
    task: Any = case.task
    if made.extra_rows:
        task = task.extended(made.extra_rows, case.rng(6))
    real = case.task.size("train")
    rows = [int(row) for row in np.sort(case.rng(9).permutation(real)[: made.label_rows])]
    rows += range(real, task.size("train"))

    def label(folder: Path) -> JSON:
        if task.self_taught:
            save_array(folder / "outputs.npy", np.zeros((task.size("train"), 1), np.float32))
            return {"rows": 0, "rows_per_second": 0.0}
        began = time.perf_counter()
        call = answering(work, measured)
        found = answers(call, task, "train", rows, progress=lambda n: work.counting("labels")(n, len(rows)))
        outputs = np.full((task.size("train"), *found.shape[1:]), np.nan, np.float32)
        outputs[rows] = found
        save_array(folder / "outputs.npy", outputs)
        speed = len(rows) / (time.perf_counter() - began)
        return {"rows": len(rows), "rows_per_second": speed}

    work.stage("remember", label)
    return replace(
        teacher,
        task=task,
        outputs=load_array(work.run.folder("remember") / "outputs.npy"),
    )


def answering(work: Work, measured: Sequence[Variant]) -> Call:
    """The original's fastest faithful file as a function of inputs, on all cores."""
    case = work.case
    setting = served_best(case, [v for v in measured if not v.precision.startswith("int8")])
    wanted = (setting.runtime, setting.precision)
    files = [row for row in work.record("original")["files"] if (row["runtime"], row["precision"]) == wanted]
    folder = work.run.folder("original")
    whole = case.task.wrap(case.model).eval()
    session = reopened(case, folder, files, "original", whole)[0].reopen(os.cpu_count() or 1)

    # PyTorch's session holds its module weakly: it must live as long as the function does.
    def call(inputs: dict[str, Tensor], kept: nn.Module = whole) -> np.ndarray:
        return session(arrays(inputs))

    return call
