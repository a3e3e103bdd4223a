"""The middle of `optimize`: try architectures for a short while each, then train the chosen for long."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from archsmith.cost.memory import cpu_time
from archsmith.errors import ArchsmithError, BadInput
from archsmith.evaluate.trained import Effort, Teacher, Trained, compare, develop, learning_rate, repaired
from archsmith.jobs.case import Case
from archsmith.jobs.choice import FIRST, PROBE, Chosen, best_trial, better, bound_of, gain_of, next_point, shrink_of
from archsmith.jobs.plan import Pace, Plan, costs_of, measure_pace
from archsmith.jobs.select import Point, Terrain, at_most, streams_of, widest_of
from archsmith.jobs.serving import answered_in
from archsmith.jobs.stages import NEAR_LIMIT, Work, costs_allowed, setting_ms
from archsmith.model import realise
from archsmith.search import closing_in, regularised_evolution
from archsmith.space import JSON, Architecture, Space, Value
from archsmith.study import Store
from archsmith.study import run as run_study
from archsmith.trial import Proposal, Strategy, Trial

BEGIN = 0.4  # share of the dearest point's latency that is tried first
WORTH_TWO = 120.0  # seconds of long training from which on a second architecture gets a share of them
FREE = 4  # points that are repaired and judged where nothing is trained
PROBED = 5  # trials from which on the first point is tried for a shorter while besides


def search(work: Work, teacher: Teacher, terrain: Terrain, points: Sequence[Point], plan: Plan) -> list[Trial]:
    """Trials of architectures: repaired, and trained for a short while where there is time.

    Where quality is bounded they close in on the fastest point of the front that should keep the bound when it has been
    trained for long; where only costs are, they begin with the best points within them and evolution goes on.
    """
    case = work.case
    pace = find_pace(work, teacher, points, plan)
    store = work.run.path / "study.db"

    def study(folder: Path) -> JSON:
        trials = run_study(
            terrain.space,
            strategy(case, teacher, terrain, points, plan),
            Timed(teacher, pace, plan, case, terrain),
            trials=plan.trials if plan.trains else FREE,
            store=store,
            seed=case.request.seed,
            objectives=("loss_points", "latency_ms"),
            on_trial=lambda trial: work.progress.say(describe(trial)),
            alone=True,  # the run's folder is held by this process
        )
        return {"trials": len(trials)}

    work.stage("search", study)
    with closing(Store.read(store)) as opened:
        return opened.history()


def describe(trial: Trial) -> str:
    """One line on a trial."""
    if trial.status != "complete":
        return f"trial {trial.number} failed: {trial.error}"
    short = ", at a quarter of the steps" if trial.proposal.fidelity else ""
    return (
        f"trial {trial.number}: {100 - trial.values['loss_points']:.1f} points, "
        f"{trial.values['latency_ms']:.2f} ms predicted, {trial.seconds:.0f} s{short}"
    )


@dataclass(frozen=True, eq=False)
class Timed:
    """The evaluator `Trained`, with as many steps as each architecture fits into the plan's seconds for a trial, or
    into the share of them that a proposal's fidelity says."""

    teacher: Teacher
    pace: Pace | None
    plan: Plan
    case: Case
    terrain: Terrain

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Points lost on validation and predicted milliseconds; beside them `macs`, `parameters` and `weight_bytes`."""
        costs = costs_of(self.case, self.teacher, proposal.architecture)
        effort = Effort()
        if self.pace is not None:
            seconds = self.plan.trial_seconds * proposal.fidelity.get("seconds", 1.0)
            effort = Effort(steps=self.pace.steps(seconds, costs.macs), batch=self.plan.batch)
        found = Trained(self.teacher, effort, self.case.request.seed, self.terrain.ms)(proposal, rng)
        return {**found, "macs": costs.macs, "parameters": costs.parameters, "weight_bytes": costs.weight_bytes}


def find_pace(work: Work, teacher: Teacher, points: Sequence[Point], plan: Plan) -> Pace | None:
    """How long a training step takes by the size of the network; None where nothing is trained."""
    if not plan.trains:
        return None

    def measure(folder: Path) -> JSON:
        by_ms = sorted(points, key=lambda p: p.ms)
        ends: list[dict[str, Value]] = [dict(by_ms[0].architecture), dict(by_ms[len(by_ms) // 2].architecture)]
        found = measure_pace(work.case, teacher, ends, plan.batch)  # type: ignore[arg-type]
        return {"fixed": found.fixed, "per_mac": found.per_mac}

    return Pace(**work.stage("pace", measure))


def strategy(case: Case, teacher: Teacher, terrain: Terrain, points: Sequence[Point], plan: Plan) -> Strategy:
    """What proposes the trials."""
    bound = bound_of(case, teacher)
    if bound is not None:
        front = [(point.ms, point.architecture) for point in widest_of(terrain, points)]
        return closing_on(front, bound, plan, case.task.size("validation"))
    starts = [point.architecture for point in candidates(case, terrain, points)]
    return regularised_evolution(("loss_points", "latency_ms"), population=len(starts), sample=3, start=starts)


def closing_on(front: Sequence[tuple[float, Architecture]], bound: float, plan: Plan, rows: int) -> Strategy:
    """Close in on what should keep the bound after long training. Where there are trials enough, the first point is
    first tried for a shorter while: it tells what longer training gives."""

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        # What fails in a short trial would fail in a long one.
        whole = [trial for trial in history if not trial.proposal.fidelity or trial.status == "failed"]
        limit = bound / shrink_of(plan, gain_of(history, rows))
        found = closing_in(front, "drop_points", limit, BEGIN)(space, whole, n, rng)
        if not history and plan.trials >= PROBED:
            return [replace(proposal, fidelity=PROBE) for proposal in found[:1]]
        return found

    return propose


def candidates(case: Case, terrain: Terrain, points: Sequence[Point]) -> list[Point]:
    """The best points of each residual width within the bound on latency, and within nine tenths of it."""
    limit = case.limit("latency") or max(point.ms for point in points)
    streams = [row for row in streams_of(terrain, points) if row]
    picks = [at_most(row, limit * share) for share in (NEAR_LIMIT, 0.9) for row in streams]
    found = [p for p in picks if p is not None] or [min(points, key=lambda p: p.ms)]
    return list({p.architecture: p for p in found}.values())


def train(
    work: Work, teacher: Teacher, terrain: Terrain, points: Sequence[Point], trials: Sequence[Trial], plan: Plan
) -> Chosen:
    """The architecture that ships: of the trials if nothing is trained, else after its long training."""
    case = work.case
    done = [trial for trial in trials if trial.status == "complete" and not trial.proposal.fidelity]
    done = [trial for trial in done if costs_allowed(work, trial.values)] or done
    if not done:
        reasons = "; ".join(sorted({trial.error for trial in trials})) or "there was none"
        raise ArchsmithError(f"a search must have a trial that completes; {reasons}. Give more --minutes.")
    bound = bound_of(case, teacher)
    gain = gain_of(trials, case.task.size("validation"))
    shrink = shrink_of(plan, gain)
    trial = best_trial(case, done, bound, shrink)
    rate = trial.values.get("learning_rate", 0.0)
    architecture, seconds = trial.proposal.architecture, plan.final_seconds
    if bound is None or not plan.trains:
        return train_one(work, teacher, terrain, architecture, Training("train", seconds, rate, plan))
    failed = {trial.proposal.architecture for trial in trials if trial.status == "failed"}
    able = [point for point in widest_of(terrain, points) if point.architecture not in failed]

    def after(drop: float) -> Point | None:
        return next_point(able, done, terrain.ms(architecture), drop, bound, terrain.ms({}), gain)

    once = Training("train", seconds, rate, plan)
    if seconds < WORTH_TWO:  # nothing comes after it: the trial's, or a slower one where that should miss the bound
        lost = trial.values["drop_points"] * shrink
        point = after(lost) if lost > bound else None
        return train_next(work, teacher, terrain, point, once) or train_one(work, teacher, terrain, architecture, once)
    if after(math.inf) is None and after(0.0) is None:  # nothing can follow
        return train_one(work, teacher, terrain, architecture, once)
    first = train_one(work, teacher, terrain, architecture, Training("train", FIRST * seconds, rate, plan))
    again = Training("train-again", (1 - FIRST) * seconds, rate, plan)
    second = train_next(work, teacher, terrain, after(first.served_drop), again)
    return first if second is None else better(first, second, bound, slower_in_fp32(work, terrain))


def train_next(
    work: Work, teacher: Teacher, terrain: Terrain, point: Point | None, training: Training
) -> Chosen | None:
    """Another architecture than the trials', trained at the rate that its cut asks for; None where there is none or it
    fails.

    What fails is said: there is one already that can ship, or that can be trained instead.
    """

    def choose(folder: Path) -> JSON:
        if point is None:
            return None
        try:
            rate = learning_rate(teacher, repaired(teacher, point.architecture))
        except OSError:
            raise
        except Exception as error:  # as in a trial
            work.progress.say(f"the next architecture cannot be made: {type(error).__name__}: {error}")
            return None
        return {"architecture": point.architecture.to_json(), "learning_rate": rate}

    chosen = work.stage("next", choose)
    if chosen is None:
        return None
    architecture = Architecture.from_json(chosen["architecture"])
    try:
        return train_one(work, teacher, terrain, architecture, replace(training, rate=chosen["learning_rate"]))
    except BadInput:
        raise
    except ArchsmithError as error:
        (work.run.path / f"{training.name}.checkpoint").unlink(missing_ok=True)  # another architecture's
        work.progress.say(f"the next architecture cannot be trained: {error}")
        return None


@dataclass(frozen=True)
class Training:
    """A long training: the stage's name, its seconds and its learning rate, and the plan that it is part of."""

    name: str
    seconds: float
    rate: float
    plan: Plan


def train_one(work: Work, teacher: Teacher, terrain: Terrain, architecture: Architecture, training: Training) -> Chosen:
    """An architecture trained for long as a stage, or repaired alone where nothing is trained.

    It leaves RUN/NAME/weights.safetensors.
    """
    case, name = work.case, training.name
    checkpoint = work.run.path / f"{name}.checkpoint"
    tell = work.counting(name)

    def make(folder: Path) -> JSON:
        pace = find_pace(work, teacher, [], training.plan)
        effort = Effort()
        if pace is not None:
            steps = pace.steps(training.seconds, costs_of(case, teacher, architecture).macs)
            plan = training.plan
            effort = Effort(steps=steps, batch=plan.batch, learning_rate=training.rate, checks=plan.checks)
        with cpu_time() as spent:
            small, fitted = develop(
                teacher, architecture, effort, case.request.seed, checkpoint=checkpoint, progress=tell
            )
        wrapped = case.task.wrap(small).eval()
        loss, drop = compare(teacher, wrapped)
        save_file(state_of(small), folder / "weights.safetensors")
        return {
            "architecture": architecture.to_json(),
            "loss": loss,
            "drop": drop,
            "served_drop": served_drop(work, teacher, wrapped, terrain, drop),
            "steps": effort.steps,
            "cpu_seconds": spent.seconds,
            "checks": [list(pair) for pair in fitted.validated] if fitted else [],
        }

    record = work.stage(name, make)
    for left in (checkpoint, checkpoint.with_suffix(".writing")):
        left.unlink(missing_ok=True)
    kept = Architecture.from_json(record["architecture"])
    small = copy.deepcopy(realise(teacher.model, teacher.anatomy, kept))
    put_state(small, load_file(work.run.folder(name) / "weights.safetensors"))
    return Chosen(kept, small.eval(), record["drop"], record["served_drop"], terrain.ms(kept))


def served_drop(work: Work, teacher: Teacher, wrapped: nn.Module, terrain: Terrain, drop: float) -> float:
    """Points below the original in the runtime and precision that the search is led by; `drop` in fp32, or where it
    cannot be made."""
    case, setting = work.case, terrain.latency.setting
    judged = teacher.judged
    if setting["precision"] == "fp32" or judged is None:
        return drop
    try:
        outputs = answered_in(case, wrapped, setting["runtime"], setting["precision"])
    except BadInput as error:
        work.progress.say(f"{setting['runtime']} {setting['precision']} cannot be made: {str(error)[:200]}")
        return drop
    return case.task.drop(case.task.judge(outputs, "validation"), judged)


def slower_in_fp32(work: Work, terrain: Terrain) -> float:
    """How many times as long the original takes in fp32, on the runtime that is fastest there, as in the setting that
    the search is led by."""
    plain = [float(row["latency_ms"]) for row in work.record("original")["variants"] if row["precision"] == "fp32"]
    return min(plain) / setting_ms(work, terrain.latency.setting["runtime"], terrain.latency.setting["precision"])


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """All parameters and saved buffers, shared ones once, as safetensors wants them."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor))
    return {name: tensor.detach().contiguous().clone() for name, tensor in found.values()}


def put_state(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """The inverse of `state_of`, in place."""
    own = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)
