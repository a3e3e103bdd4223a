"""A network that somebody designed by hand, trained and judged like the winner of a search, on the same data."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from archsmith.build import Declared
from archsmith.build.plan import Part as Plan
from archsmith.errors import ArchsmithError, BadInput
from archsmith.evaluate.from_scratch import FromScratch, quicker
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.trained import validation_loss
from archsmith.jobs.asked import read_asked
from archsmith.jobs.ground import TASKS, Scratch, grounded
from archsmith.jobs.pacing import in_full, recipes
from archsmith.jobs.scratch import CHECKS, check_inputs, exported_ms
from archsmith.report.result import read_result
from archsmith.space import JSON
from archsmith.study import RunDirectory
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
    run: str | Path,
    network: JSON,
    *,
    learning_rates: Sequence[float] = (2e-3,),
    minutes: float | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
) -> Baseline:
    """Train a declared network (docs/build.md) as a run's winner was, and judge it once on the holdout. What else than
    the batch a space chose of the winner's recipe is the winner's alone.

    `network` has no choices; `$classes`, `$outputs` and `$vocabulary` are the task's. Of several learning rates the one
    that is best on validation counts. Steps are the winner's for each, or `steps`, or what all of them together do in
    `minutes`. `out`: a folder that keeps what was trained, so that the same call goes on where a killed one was.

    Raises `BadInput` for a run that is no search from nothing, for a network that does not fit its task, and for a
    folder of another baseline.
    """
    if not learning_rates:
        raise BadInput("a baseline is trained at a learning rate", "none", "learning_rates", "give one or more")
    if minutes is not None and steps is not None:
        raise BadInput("a baseline has minutes or steps", f"minutes {minutes}, steps {steps}", "steps", "give one")
    for name, length in (("minutes", minutes), ("steps", steps)):
        if length is not None and not length > 0:
            raise BadInput(f"{name} of a baseline are above 0", f"{length}", name, "give more, or leave it out")
    scratch, maker, plan = _beside(run, network)
    ground, usual = maker.ground, maker.recipe

    def settle(folder: Path) -> JSON:
        if minutes is None:
            autocast = usual.autocast and quicker(lambda bf16: [maker.step_seconds(plan, bf16)])[0]
            return {"steps": steps or usual.steps, "autocast": autocast}
        autocast, step = _pace(maker, plan)
        return {"steps": _within(minutes / len(learning_rates), step), "autocast": autocast}

    told = {"network": network, "learning_rates": list(learning_rates), "minutes": minutes, "steps": steps}
    told["recipe"] = asdict(usual)
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory()))
        kept = stack.enter_context(_kept(folder, {"baseline": {"run": str(Path(run).absolute()), **told}}))
        length = kept.stage("length", settle)
        recipe = in_full(ground, length["steps"], length["autocast"], usual.batch)
        tried = []
        for number, rate in enumerate(learning_rates):
            one = replace(maker, recipe=replace(recipe, learning_rate=rate))
            tried.append({**kept.stage(f"rate{number}", partial(_train, one, plan, kept.path)), "number": number})
            for left in kept.path.glob(f"rate{number}.*"):
                left.unlink()
        able = [each for each in tried if "loss_points" in each]
        if not able:
            raise ArchsmithError(f"a baseline is trained at one rate at least; {tried[0]['error']}")
        best = min(able, key=lambda each: each["loss_points"])
        wrapped = ground.task.wrap(ground.module(plan, scratch.seed))
        weights = kept.folder(f"rate{best['number']}") / "weights.pt"
        wrapped.load_state_dict(torch.load(weights, weights_only=True))
    task = TASKS[scratch.task](scratch)  # its own, whose holdout nobody else has opened
    task.open_holdout()
    costs, seconds = paper_costs(plan), sum(each["seconds"] for each in tried)
    return Baseline(
        quality=task.quality(task.judge(answers(calling(wrapped.eval()), task, "holdout"), "holdout")),
        validation=100 - best["loss_points"],
        parameters=int(costs["parameters"]),
        macs=int(costs["macs"]),
        latency_ms=exported_ms(scratch, task, wrapped),
        learning_rate=learning_rates[best["number"]],
        steps=best["steps"],
        seconds=seconds,
    )


def steps_in(run: str | Path, network: JSON, minutes: float) -> int:
    """Steps of a training of a declared network beside a run's winner that this machine does in so many minutes: those
    of a `baseline` that may be trained on another. Raises as that does."""
    _, maker, plan = _beside(run, network)
    return _within(minutes, _pace(maker, plan)[1])


def _beside(run: str | Path, network: JSON) -> tuple[Scratch, FromScratch, Plan]:
    """What a run was asked, and a network of one's own with what trains it as the winner was."""
    asked = read_asked(run)
    if asked is None or asked.scratch is None:
        raise BadInput("a baseline is trained on what a search from nothing was asked", "none", str(run))
    scratch, blueprint = asked.scratch, Declared({}, network)
    check_inputs(Path(run), scratch)
    ground, _ = grounded(scratch)
    usual = recipes(Path(run), scratch)[1]
    return scratch, FromScratch(ground, blueprint, usual, scratch.seed), ground.plan(blueprint, {})


def _pace(maker: FromScratch, plan: Plan) -> tuple[bool, float]:
    """Whether its steps are in bf16, and the seconds of one."""
    autocast, (step,) = quicker(lambda bf16: [maker.step_seconds(plan, bf16)])
    return autocast, step


def _within(minutes: float, step: float) -> int:
    """Steps of so many seconds."""
    return max(10, round(minutes * 60 / step))


def _train(maker: FromScratch, plan: Plan, kept: Path, folder: Path) -> JSON:
    """At one learning rate; where training does not stay finite at it, others may."""
    began, checkpoint = time.perf_counter(), kept / f"{folder.name}.checkpoint"
    try:
        wrapped, fitted = maker.annealed(plan, maker.recipe, checks=CHECKS, checkpoint=checkpoint)
    except ArchsmithError as error:
        return {"error": str(error), "seconds": time.perf_counter() - began}
    torch.save(wrapped.state_dict(), folder / "weights.pt")
    lost = validation_loss(wrapped, maker.ground.task)
    return {"loss_points": lost, "steps": fitted.steps, "seconds": fitted.seconds}


def _kept(folder: Path, plan: JSON) -> RunDirectory:
    """A new folder, or that of the same baseline. Raises `BadInput` for another's."""
    if not (folder / "plan.json").exists():
        return RunDirectory.create(folder, plan)
    held = RunDirectory.open(folder)
    if held.plan != json.loads(json.dumps(plan)):
        held.close()
        law = "a baseline goes on in the folder of the same one"
        raise BadInput(law, "another network, recipe, time or run", str(folder), "name another with out")
    return held


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
