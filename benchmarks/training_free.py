"""A front without any training: at half and at 28 % of the encoder's MACs, how far below the original on dev.tsv."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from record import Record, main

from archsmith.cost import count
from archsmith.errors import BudgetNotReachable
from archsmith.evaluate.trained import Effort, develop
from archsmith.jobs import stages
from archsmith.jobs.case import Request, prepare
from archsmith.jobs.optimize import follow
from archsmith.jobs.plan import costs_of
from archsmith.jobs.select import Point
from archsmith.jobs.stages import Work
from archsmith.report.terminal import Progress
from archsmith.study import RunDirectory
from archsmith.tasks import paired_interval
from archsmith.tasks.answer import answers, calling

ALLOWED = {0.5: 1.0, 0.28: 3.0}


def run(record: Record, options: argparse.Namespace) -> None:
    """MiniLM on SST-2 with three minutes: quality of the front's points by their share of the encoder's MACs."""
    request = Request(
        model=str(record.data / "models" / "minilm-sst2"),
        task="text-classification",
        data=str(record.data / "data" / "sst2" / "train.tsv"),
        holdout=str(record.data / "data" / "sst2" / "dev.tsv"),
        targets=("drop<=1.0",),
        runtime="openvino",
        minutes=3.0,
        seed=options.seed,
    )
    case = prepare(request)
    with (
        tempfile.TemporaryDirectory() as scratch,
        RunDirectory.create(Path(scratch) / "run", request.to_json()) as opened,
    ):
        work = Work(case, opened, Progress())
        try:
            follow(case, opened, Progress())
        except BudgetNotReachable as error:
            print(error)
        record.say("seconds of optimize", work.spent, "s")
        measured = stages.original(work)
        teacher = stages.sort_units(work, stages.examine_model(work))
        points = stages.select(work, teacher, stages.survey(work, teacher, measured))
        with torch.no_grad():
            whole = count(case.task.wrap(case.model), case.example()).macs
        original = case.task.judge(answers(calling(case.task.wrap(case.model).eval()), case.task, "holdout"), "holdout")
        for share, allowed in ALLOWED.items():
            point = nearest(points, lambda p: costs_of(case, teacher, p.architecture).macs / whole, share)
            small, _ = develop(teacher, point.architecture, Effort(), request.seed)
            judged = case.task.judge(answers(calling(case.task.wrap(small).eval()), case.task, "holdout"), "holdout")
            found = paired_interval(original, judged, np.random.default_rng(0), case.task.quality)
            record.say(
                f"at {share:.0%} of the MACs: share found", costs_of(case, teacher, point.architecture).macs / whole
            )
            record.say(f"at {share:.0%} of the MACs: its 95 % interval", [-found.high, -found.low], "points")
            record.say(f"at {share:.0%} of the MACs: drop", -found.difference, "points", -found.difference <= allowed)


def nearest(points: list[Point], share_of: object, wanted: float) -> Point:
    """The best-scored point of at most the wanted share of MACs."""
    within = [point for point in points if share_of(point) <= wanted]  # type: ignore[operator]
    return min(within, key=lambda point: point.score)


if __name__ == "__main__":
    main("training_free", run, ("--seed", {"type": int, "default": 0}))
