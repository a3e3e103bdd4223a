"""One dial, minutes, turned into counts: what is measured at the start decides how many steps, rows and trials."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from torch import nn

from archsmith.compress.distil import distil
from archsmith.cost import Costs, count
from archsmith.evaluate.trained import Teacher
from archsmith.jobs.case import Case
from archsmith.model import realise
from archsmith.space import Value
from archsmith.tasks import Task
from archsmith.tasks.answer import Call
from archsmith.train import Schedule

LEAST_TRAINING = 20.0  # seconds left below which nothing is trained: the front is then what repair alone gives
BATCH, LEAST_BATCH = 64, 8  # rows of a training step; fewer where they would take longer than STEP_SECONDS
STEP_SECONDS = 6.0
LABELLING, TRYING = 0.2, 0.15  # shares of the time left that ask the original, and that try architectures
TRIAL_SECONDS, MOST_TRIALS = 25, 32
PACED, LEAST_PACED = 24, 6  # steps that are timed, of whole batches and of small ones
SLOW_SECONDS = 4.0  # of a whole batch of the original's answers, from which on a few rows tell enough
CHECKING, CHECKS = 0.1, 8  # share of a long training's seconds that its checks on validation take, and most of them
JUDGED, JUDGED_AGAIN = 2, 3  # times a trial is judged on validation, and a long training, besides its checks
HELD_OUT = 3  # passes over the holdout: the original, the small one, and in lower precision
MADE = 4  # made rows a real one at most


@dataclass(frozen=True)
class Plan:
    """Counts, fixed once measured, so that a killed run ends as it would have.

    `label_rows`: train rows that the original answers; `extra_rows`: made rows among them; `trials`: short trainings
    of `trial_seconds`; `final_seconds`: each of at most two long trainings gets a share of them, for its steps alone:
    the `checks` of each on validation, and what judging takes besides, have been taken off. `batch`: rows of a step.
    """

    label_rows: int
    extra_rows: int
    trials: int
    trial_seconds: float
    final_seconds: float
    checks: int
    batch: int = BATCH

    def to_json(self) -> dict[str, Value]:
        """A JSON object."""
        return asdict(self)

    @property
    def trains(self) -> bool:
        """Whether there is time to train at all."""
        return self.final_seconds > 0


def make_plan(case: Case, call: Call, spent: float, ship_seconds: float) -> Plan:
    """Divide what is left of the minutes: up to a fifth asks the original, then a seventh tries and the rest trains.

    `call`: the original; `spent`: seconds of the stages before; `ship_seconds`: what exporting and measuring it took.
    """
    a_row = _label_seconds(case, call)
    a_check = case.task.size("validation") * a_row
    left = case.request.minutes * 60 - spent - 1.5 * ship_seconds - HELD_OUT * case.task.size("holdout") * a_row
    nothing = Plan(0, 0, 0, 0.0, 0.0, 0)
    if left < LEAST_TRAINING:
        return nothing
    label_rows, extra = _asked(case.task, LABELLING * (left - (2 * JUDGED + 2 * JUDGED_AGAIN) * a_check) / a_row)
    if label_rows < min(case.task.size("train"), BATCH):
        return nothing  # fewer answers than a batch teach nothing
    left -= 0.0 if case.task.self_taught else (label_rows + extra) * a_row
    trials = int(np.clip(TRYING * left / max(TRIAL_SECONDS, JUDGED * a_check), 2, MOST_TRIALS))
    left -= (trials * JUDGED + 2 * JUDGED_AGAIN) * a_check
    if left < LEAST_TRAINING:
        return nothing
    final = (1 - TRYING) * left
    checks = int(min(CHECKS, CHECKING * final / max(2 * a_check, 1e-9)))
    seconds = final - 2 * checks * a_check
    return Plan(label_rows, extra, trials, TRYING * left / trials, seconds, checks, _batch(a_row))


def _asked(task: Task, most: float) -> tuple[int, int]:
    """Real and made rows that the original is asked for, `most` in all; what teaches itself is not asked for any."""
    rows = task.size("train")
    if task.self_taught:
        return rows, MADE * rows
    real = int(min(rows, max(task.real_share * most, most - MADE * rows)))
    return real, int(min(MADE * rows, most - real))


def _batch(a_row: float) -> int:
    """Rows of a training step, whose passes there and back take three times as long as an answer."""
    batch = BATCH
    while batch > LEAST_BATCH and 3 * batch * a_row > STEP_SECONDS:
        batch //= 2
    return batch


def _label_seconds(case: Case, call: Call) -> float:
    """Wall seconds of one row of the original's answers, over batches of all lengths."""

    def timed(size: int, batches: int) -> float:
        rows = list(case.task.batches("train", size, case.rng(11)))[:batches]
        inputs = [case.task.inputs("train", each) for each in rows]
        call(inputs[0])  # the first call of a session also allocates
        began = time.perf_counter()
        for each in inputs:
            call(each)
        return (time.perf_counter() - began) / max(1, sum(map(len, rows)))

    few = timed(LEAST_BATCH, 1)
    return few if few * BATCH > SLOW_SECONDS else timed(BATCH, 8)


@dataclass(frozen=True)
class Pace:
    """Wall seconds of one training step: `fixed` + `per_mac` x MACs of the example that latency is measured on."""

    fixed: float
    per_mac: float

    def steps(self, seconds: float, macs: int) -> int:
        """How many steps fit."""
        return max(1, int(seconds / (self.fixed + self.per_mac * macs)))


def measure_pace(case: Case, teacher: Teacher, architectures: list[Mapping[str, Value]], batch: int = BATCH) -> Pace:
    """Time a few steps of a small and a large network, and draw a line through them."""
    points = []
    for architecture in architectures:
        small = realise(teacher.model, teacher.anatomy, architecture)
        wrapped = teacher.task.wrap(copy.deepcopy(small))
        macs = costs_of(case, teacher, architecture).macs
        points.append((macs, _step_seconds(teacher, wrapped, batch)))
    (m0, s0), (m1, s1) = points[0], points[-1]
    per_mac = max(0.0, (s1 - s0) / (m1 - m0)) if m1 != m0 else 0.0
    return Pace(max(1e-3, s0 - per_mac * m0), per_mac)


def _step_seconds(teacher: Teacher, wrapped: nn.Module, batch: int) -> float:
    """Wall seconds of a training step; the first few, and what comes before them, do not count."""
    assert teacher.outputs is not None
    steps = max(LEAST_PACED, PACED * batch // BATCH)
    ends: list[float] = []

    def progress(step: int) -> None:
        ends.append(time.perf_counter())

    distil(wrapped, teacher.task, teacher.outputs, Schedule(steps), 0, batch=batch, progress=progress)
    return (ends[-1] - ends[2]) / (steps - 3)


def costs_of(case: Case, teacher: Teacher, architecture: Mapping[str, Value]) -> Costs:
    """Parameters, MACs and bytes of an architecture, on the example that latency is measured on."""
    return count(teacher.task.wrap(realise(teacher.model, teacher.anatomy, architecture)), case.example())
