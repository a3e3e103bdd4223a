"""The middle of `optimize`: try architectures for a short while each, then train the chosen for long."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from archsmith.cost.memory import cpu_time
from archsmith.errors import ArchsmithError
from archsmith.evaluate.trained import Effort, Teacher, Trained, compare, develop
from archsmith.jobs.case import Case
from archsmith.jobs.plan import BATCH, Pace, Plan, costs_of, measure_pace
from archsmith.jobs.select import Point, Terrain, at_most, streams_of
from archsmith.jobs.stages import NEAR_LIMIT, Work, costs_allowed
from archsmith.model import realise
from archsmith.search import closing_in, regularised_evolution
from archsmith.space import JSON, Architecture, Value
from archsmith.study import Store
from archsmith.study import run as run_study
from archsmith.trial import Proposal, Strategy, Trial

BEGIN = 0.4  # share of the dearest point's latency that is tried first
FREE = 4  # points that are repaired and judged where nothing is trained
DROP = 1.0  # points below the original that are allowed where no bound is given
FIRST = 0.62  # of the seconds of training: the first choice's share, if another may follow
GAIN = 0.25  # what is lost shrinks about as (time trained) ** -GAIN


@dataclass(frozen=True, eq=False)
class Chosen:
    """The architecture that ships, its trained module, and how many points it is below the original."""

    architecture: Architecture
    module: nn.Module
    drop: float
    predicted_ms: float


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
    return (
        f"trial {trial.number}: {100 - trial.values['loss_points']:.1f} points, "
        f"{trial.values['latency_ms']:.2f} ms predicted, {trial.seconds:.0f} s"
    )


@dataclass(frozen=True, eq=False)
class Timed:
    """The evaluator `Trained`, with as many steps as each architecture fits into the plan's seconds for a trial."""

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
            effort = Effort(steps=self.pace.steps(self.plan.trial_seconds, costs.macs), batch=BATCH)
        found = Trained(self.teacher, effort, self.case.request.seed, self.terrain.ms)(proposal, rng)
        return {**found, "macs": costs.macs, "parameters": costs.parameters, "weight_bytes": costs.weight_bytes}


def find_pace(work: Work, teacher: Teacher, points: Sequence[Point], plan: Plan) -> Pace | None:
    """How long a training step takes by the size of the network; None where nothing is trained."""
    if not plan.trains:
        return None

    def measure(folder: Path) -> JSON:
        by_ms = sorted(points, key=lambda p: p.ms)
        ends: list[dict[str, Value]] = [dict(by_ms[0].architecture), dict(by_ms[len(by_ms) // 2].architecture)]
        found = measure_pace(work.case, teacher, ends)  # type: ignore[arg-type]
        return {"fixed": found.fixed, "per_mac": found.per_mac}

    return Pace(**work.stage("pace", measure))


def strategy(case: Case, teacher: Teacher, terrain: Terrain, points: Sequence[Point], plan: Plan) -> Strategy:
    """What proposes the trials."""
    bound = bound_of(case, teacher)
    if bound is not None:
        widest = next(row for row in streams_of(terrain, points) if row)
        front = [(point.ms, point.architecture) for point in widest]
        return closing_in(front, "drop_points", bound / shrink_of(plan), BEGIN)
    starts = [point.architecture for point in candidates(case, terrain, points)]
    return regularised_evolution(("loss_points", "latency_ms"), population=len(starts), sample=3, start=starts)


def bound_of(case: Case, teacher: Teacher) -> float | None:
    """Points below the original that are allowed; None where a latency, or only other costs, are bounded."""
    drop, quality = case.limit("drop"), case.limit("quality")
    if case.limit("latency") is not None or (case.targets and drop is None and quality is None):
        return None
    bounds = [] if drop is None else [drop]
    if quality is not None:
        judged = teacher.judged
        bounds.append((100.0 if judged is None else teacher.task.quality(judged)) - quality)
    return min(bounds, default=DROP)


def shrink_of(plan: Plan) -> float:
    """The share of what a trial loses that should remain after long training."""
    if not plan.trains:
        return 1.0
    return float((plan.trial_seconds / max(FIRST * plan.final_seconds, plan.trial_seconds)) ** GAIN)


def candidates(case: Case, terrain: Terrain, points: Sequence[Point]) -> list[Point]:
    """The best points of each residual width within the bound on latency, and within nine tenths of it."""
    limit = case.limit("latency") or max(point.ms for point in points)
    streams = [row for row in streams_of(terrain, points) if row]
    picks = [at_most(row, limit * share) for share in (NEAR_LIMIT, 0.9) for row in streams]
    found = [p for p in picks if p is not None] or [min(points, key=lambda p: p.ms)]
    return list({p.architecture: p for p in found}.values())


def train(work: Work, teacher: Teacher, terrain: Terrain, trials: Sequence[Trial], plan: Plan) -> Chosen:
    """The architecture that ships: of the trials if nothing is trained, else after its long training."""
    case = work.case
    done = [trial for trial in trials if trial.status == "complete"]
    done = [trial for trial in done if costs_allowed(work, trial.values)] or done
    if not done:
        reasons = "; ".join(sorted({trial.error for trial in trials})) or "there was none"
        raise ArchsmithError(f"a search must have a trial that completes; {reasons}. Give more --minutes.")
    bound = bound_of(case, teacher)
    if not plan.trains:
        trial = best_trial(case, done, bound, 1.0)
        return train_one(work, teacher, terrain, trial, "train", 0.0, plan)
    trial = best_trial(case, done, bound, shrink_of(plan))
    if bound is None or next_trial(done, trial, math.inf, bound) is None:
        return train_one(work, teacher, terrain, trial, "train", plan.final_seconds, plan)
    chosen = train_one(work, teacher, terrain, trial, "train", FIRST * plan.final_seconds, plan)
    other = next_trial(done, trial, chosen.drop, bound)
    if other is None:
        return chosen
    second = train_one(work, teacher, terrain, other, "train-again", (1 - FIRST) * plan.final_seconds, plan)
    return better(chosen, second, bound)


def train_one(
    work: Work, teacher: Teacher, terrain: Terrain, trial: Trial, name: str, seconds: float, plan: Plan
) -> Chosen:
    """A trial's architecture trained for long as a stage, or repaired alone where nothing is trained.

    It leaves RUN/NAME/weights.safetensors.
    """
    case, architecture = work.case, trial.proposal.architecture
    checkpoint = work.run.path / f"{name}.checkpoint"
    tell = work.counting(name)

    def make(folder: Path) -> JSON:
        pace = find_pace(work, teacher, [], plan)
        effort = Effort()
        if pace is not None:
            steps = pace.steps(seconds, costs_of(case, teacher, architecture).macs)
            rate = trial.values["learning_rate"]
            effort = Effort(steps=steps, batch=BATCH, learning_rate=rate, checks=plan.checks)
        with cpu_time() as spent:
            small, fitted = develop(
                teacher, architecture, effort, case.request.seed, checkpoint=checkpoint, progress=tell
            )
        loss, drop = compare(teacher, case.task.wrap(small).eval())
        save_file(state_of(small), folder / "weights.safetensors")
        return {
            "architecture": architecture.to_json(),
            "loss": loss,
            "drop": drop,
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
    return Chosen(kept, small.eval(), record["drop"], terrain.ms(kept))


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


def best_trial(case: Case, trials: Sequence[Trial], bound: float | None, shrink: float) -> Trial:
    """The trial to go on with; `shrink`: the share of what a trial loses that should remain after long training.

    With a bound on latency, the best within it; without one on quality, the best; else the fastest whose loss should
    keep it, or the best if none should.
    """
    latency = case.limit("latency")
    if latency is not None:
        within = [t for t in trials if t.values["latency_ms"] <= latency] or [
            min(trials, key=lambda t: t.values["latency_ms"])
        ]
        return min(within, key=lambda t: t.values["loss_points"])
    able = [t for t in trials if bound is not None and t.values["drop_points"] * shrink <= bound]
    if not able:
        return min(trials, key=lambda t: t.values["loss_points"])
    return min(able, key=lambda t: t.values["latency_ms"])


def next_trial(trials: Sequence[Trial], tried: Trial, drop: float, bound: float) -> Trial | None:
    """What to spend the rest on: the next better trial where the bound is missed, else the fastest that may keep it.

    What the tried one gained by its long training the others are taken to gain too. None where nothing is worth it.
    """
    at, lost = tried.values["latency_ms"], max(tried.values["drop_points"], 1e-6)
    if drop > bound:
        better = [t for t in trials if t.values["drop_points"] < tried.values["drop_points"]]
        slower = [t for t in better if t.values["latency_ms"] > at]
        return min(slower, key=lambda t: t.values["latency_ms"], default=None)
    faster = [t for t in trials if t.values["latency_ms"] < at and t.values["drop_points"] * drop / lost <= bound]
    return min(faster, key=lambda t: t.values["latency_ms"], default=None)


def better(first: Chosen, second: Chosen, bound: float) -> Chosen:
    """Of two trained architectures the faster that keeps the bound, else the one that loses less."""
    able = [c for c in (first, second) if c.drop <= bound]
    if able:
        return min(able, key=lambda c: c.predicted_ms)
    return min((first, second), key=lambda c: c.drop)
