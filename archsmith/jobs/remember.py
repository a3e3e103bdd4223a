"""Before training: what is left of the minutes as counts, and the original's answers to the texts it has time for."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.cost import arrays
from archsmith.evaluate.trained import Teacher
from archsmith.jobs.plan import Plan, make_plan
from archsmith.jobs.select import Terrain
from archsmith.jobs.serving import reopened
from archsmith.jobs.stages import Work
from archsmith.space import JSON
from archsmith.tasks.answer import Call, answers, load_array, save_array


def plan(work: Work, terrain: Terrain) -> Plan:
    """What is left of the minutes as counts, printed."""

    def make(folder: Path) -> JSON:
        ship = work.run.seconds().get("original", 60.0)
        return make_plan(work.case, answering(work, terrain), work.spent, ship).to_json()

    made = Plan(**work.stage("plan", make))
    work.progress.plan(made.to_json())
    return made


def remember(work: Work, teacher: Teacher, terrain: Terrain, made: Plan) -> Teacher:
    """The teacher with its answers to the train rows (and made rows) that the plan has time for.

    They are asked of the original's file that the search is led by: the fastest that keeps its quality.
    """
    if not made.trains:
        return teacher
    case = work.case
    task: Any = case.task
    if made.extra_rows:
        task = task.extended(made.extra_rows, case.rng(6))
    drawn = case.rng(9).permutation(task.size("train"))[: made.label_rows + made.extra_rows]
    rows = [int(row) for row in np.sort(drawn)]

    def label(folder: Path) -> JSON:
        began = time.perf_counter()
        call = answering(work, terrain)
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


def answering(work: Work, terrain: Terrain) -> Call:
    """The original's file in the setting that the search is led by, as a function of inputs, on all cores."""
    case, setting = work.case, terrain.latency.setting
    files = work.record("original")["files"]
    alike = [row for row in files if all(row[key] == setting[key] for key in ("runtime", "precision"))]
    served = reopened(case, work.run.folder("original"), alike, "original", case.task.wrap(case.model).eval())[0]
    session = served.reopen(os.cpu_count() or 1)
    return lambda inputs: session(arrays(inputs))
