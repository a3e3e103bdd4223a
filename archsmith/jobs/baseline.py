"""A network that somebody designed by hand, trained and judged like the winner of a search, on the same data."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from archsmith.build import Declared
from archsmith.errors import BadInput
from archsmith.evaluate.from_scratch import FromScratch, quicker
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.trained import validation_loss
from archsmith.jobs.ground import TASKS, grounded
from archsmith.jobs.scratch import CHECKS, exported_ms, recipes
from archsmith.jobs.search import read_asked
from archsmith.report.result import read_result
from archsmith.space import JSON
from archsmith.tasks.answer import answers, calling


@dataclass(frozen=True)
class Baseline:
    """What a network of one's own reached; `quality` (holdout) and `validation` in points; latency in fp32, one row."""

    quality: float
    validation: float
    parameters: int
    macs: int
    latency_ms: float
    learning_rate: float
    steps: int
    seconds: float


def baseline(
    run: str | Path, network: JSON, *, learning_rates: Sequence[float] = (2e-3,), minutes: float | None = None
) -> Baseline:
    """Train a declared network (docs/build.md) by the recipe of a run's winner, and judge it once on the holdout.

    `network` has no choices; `$classes`, `$outputs` and `$vocabulary` are the task's. Of several learning rates the one
    that is best on validation counts. Steps are the winner's for each, or what all of them together do in `minutes`.

    Raises `BadInput` for a run that is no search from nothing, and for a network that does not fit its task.
    """
    if not learning_rates:
        raise BadInput("a baseline is trained at a learning rate", "none", "learning_rates", "give one or more")
    asked = read_asked(run)
    if asked is None or asked.scratch is None:
        raise BadInput("a baseline is trained on what a search from nothing was asked", "none", str(run))
    blueprint = Declared({}, network)
    ground, _ = grounded(asked.scratch)
    plan = ground.plan(blueprint, {})
    recipe = recipes(Path(run), asked.scratch)[1]
    maker = FromScratch(ground, blueprint, recipe, asked.scratch.seed)
    if minutes is not None:
        autocast, (step,) = quicker(lambda bf16: [maker.step_seconds(plan, bf16)])
        steps = minutes * 60 / len(learning_rates) / step
        recipe = replace(recipe, steps=max(10, round(steps)), autocast=autocast)
    began = time.perf_counter()
    tried = []
    for rate in learning_rates:
        wrapped, fitted = maker.annealed(plan, replace(recipe, learning_rate=rate), checks=CHECKS)
        tried.append((validation_loss(wrapped, ground.task), rate, wrapped, fitted.steps))
    seconds = time.perf_counter() - began
    loss, rate, wrapped, steps = min(tried, key=lambda one: one[0])
    task = TASKS[asked.scratch.task](asked.scratch)  # its own, whose holdout nobody else has opened
    task.open_holdout()
    quality = task.quality(task.judge(answers(calling(wrapped), task, "holdout"), "holdout"))
    costs = paper_costs(plan)
    ms = exported_ms(asked.scratch, task, wrapped)
    return Baseline(quality, 100 - loss, int(costs["parameters"]), int(costs["macs"]), ms, rate, steps, seconds)


def compared(run: str | Path, others: Mapping[str, Baseline]) -> str:
    """A table of what a run has found, as it ships, and of networks of one's own in fp32: points on the holdout, size,
    latency of one row."""
    result = read_result(Path(run))
    assert result.holdout is not None
    rows = [("found", result.holdout.best, result.best.parameters, result.best.latency_ms)]
    rows += [(name, each.quality, each.parameters, each.latency_ms) for name, each in others.items()]
    lines = [f"{'':16}{'points':>8}{'parameters':>14}{'ms':>10}"]
    lines += [f"{name:16}{points:8.1f}{parameters:14,}{ms:10.3f}" for name, points, parameters, ms in rows]
    return "\n".join(lines)
