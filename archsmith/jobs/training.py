"""The middle of `optimize`: try architectures for a short while each, then train the chosen for long."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from archsmith.errors import ArchsmithError
from archsmith.evaluate.trained import Effort, Teacher, Trained, compare, develop
from archsmith.jobs.case import Case
from archsmith.jobs.plan import BATCH, Pace, Plan, costs_of, measure_pace
from archsmith.jobs.select import Point, Terrain, at_most, full_point, non_dominated, streams_of
from archsmith.jobs.stages import NEAR_LIMIT, Work
from archsmith.model import realise
from archsmith.search import regularised_evolution
from archsmith.space import JSON, Architecture, Value
from archsmith.study import run as run_study
from archsmith.trial import Proposal, Trial

# Shares of the original's latency that are tried before training, in this order, and whether as a uniform shape.
LEVELS = ((0.25, False), (0.4, False), (0.15, False), (0.25, True), (0.32, False), (0.15, True))
FREE_LEVELS = (0.6, 0.4, 0.75, 0.28)  # the same where nothing is trained
FREE = 4  # points that are repaired and judged where nothing is trained
SHARES = (1.0, 0.84, 0.67, 0.5, 0.42, 0.34, 0.25, 0.17)  # widths that uniform cuts are tried at, as shares
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

    First points of the fronts and plain shapes; where there is time for more, evolution goes on from what they reached.
    """
    case = work.case
    pace = find_pace(work, teacher, points, plan)
    starts = candidates(case, terrain, points, plan.trials if plan.trains else FREE, plan.trains)
    evaluator = Timed(teacher, pace, plan, case, terrain)
    trials = run_study(
        terrain.space,
        regularised_evolution(
            ("loss_points", "latency_ms"), population=len(starts), sample=3, start=[p.architecture for p in starts]
        ),
        evaluator,
        trials=max(plan.trials, len(starts)) if plan.trains else len(starts),
        store=work.run.path / "study.db",
        seed=case.request.seed,
        objectives=("loss_points", "latency_ms"),
        on_trial=lambda trial: work.progress.say(describe(trial)),
    )
    work.stage("search", lambda folder: {"trials": len(trials)})
    return trials


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


def candidates(case: Case, terrain: Terrain, points: Sequence[Point], most: int, training: bool) -> list[Point]:
    """What to try: with a bound on latency, the best of each residual width within it; else down the levels."""
    whole = terrain.ms({})
    limit = case.limit("latency")
    streams = [row for row in streams_of(terrain, points) if row]
    if limit is not None:
        within = [at_most(row, limit * NEAR_LIMIT) for row in streams]
        wider = [at_most(row, limit * 0.9) for row in streams]
        found = [p for p in (*within, *wider) if p is not None] or [min(points, key=lambda p: p.ms)]
    else:
        # Block scores say what a cut costs before training; deep cuts are learnt again, and there plain shapes do as
        # well as any: the most telling layers, all alike.
        levels = LEVELS if training else tuple((level, False) for level in FREE_LEVELS)
        picks = [
            uniform(terrain, whole * level) if alike else at_most(streams[0], whole * level) for level, alike in levels
        ]
        found = [p for p in picks if p is not None] or non_dominated(points)
    unique = list({p.architecture: p for p in found}.values())
    return unique[:most]


def uniform(terrain: Terrain, ms: float) -> Point | None:
    """The layers that matter most, all cut to the same share, as many and as wide as a latency allows.

    Of the shapes that fit, the one whose number of layers and width share are nearest to each other; None where the
    network has no layers or nothing fits.
    """
    layers = [name for name, branch in terrain.anatomy.branches.items() if branch.kind == "layer"]
    layers = [name for name in layers if name in terrain.scores]
    by_score = sorted(layers, key=lambda name: -terrain.scores[name][False])
    inner = [name for name in terrain.space.choices if name in terrain.anatomy.axes]
    inner = [name for name in inner if terrain.anatomy.axes[name].layer in layers]
    fitting: list[tuple[float, Point]] = []
    for kept in range(1, len(layers) + 1):
        for share in SHARES:
            values: dict[str, Value] = {name: name in by_score[:kept] for name in layers}
            for name in inner:
                size = terrain.anatomy.axes[name].size
                options = terrain.space.choices[name].values
                values[name] = min(options, key=lambda value: abs(float(value) - share * size))
            architecture = full_point(terrain.space, values)
            predicted = terrain.ms(architecture)
            if predicted <= ms:
                apart = abs(kept / len(layers) - share)
                score = sum(terrain.scores[name][value] for name, value in architecture.items())
                fitting.append((apart - predicted / ms, Point(architecture, score, predicted)))
                break
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


def train(work: Work, teacher: Teacher, terrain: Terrain, trials: Sequence[Trial], plan: Plan) -> Chosen:
    """The architecture that ships: of the trials if nothing is trained, else after its long training."""
    case = work.case
    done = [trial for trial in trials if trial.status == "complete"]
    if not done:
        reasons = "; ".join(sorted({trial.error for trial in trials})) or "there was none"
        raise ArchsmithError(f"a search must have a trial that completes; {reasons}. Give more --minutes.")
    if not plan.trains:
        trial = best_trial(case, done, lost_by_original(teacher), 1.0)
        return train_one(work, teacher, terrain, trial, "train", 0.0, plan)
    first_seconds, second_seconds = FIRST * plan.final_seconds, (1 - FIRST) * plan.final_seconds
    if case.limit("latency") is not None:
        first_seconds, second_seconds = plan.final_seconds, 0.0
    shrink = (plan.trial_seconds / max(first_seconds, plan.trial_seconds)) ** GAIN
    trial = best_trial(case, done, lost_by_original(teacher), shrink)
    chosen = train_one(work, teacher, terrain, trial, "train", first_seconds, plan)
    other = next_trial(case, done, trial, chosen.drop) if second_seconds else None
    if other is None:
        return chosen
    second = train_one(work, teacher, terrain, other, "train-again", second_seconds, plan)
    return better(case, chosen, second)


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
        small, fitted = develop(teacher, architecture, effort, case.request.seed, checkpoint=checkpoint, progress=tell)
        loss, drop = compare(teacher, case.task.wrap(small).eval())
        save_file(state_of(small), folder / "weights.safetensors")
        return {
            "architecture": architecture.to_json(),
            "loss": loss,
            "drop": drop,
            "steps": effort.steps,
            "checks": [list(pair) for pair in fitted.validated] if fitted else [],
        }

    record = work.stage(name, make)
    checkpoint.unlink(missing_ok=True)
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


def lost_by_original(teacher: Teacher) -> float:
    """Points that the original loses on validation."""
    return 0.0 if teacher.judged is None else 100.0 - teacher.task.quality(teacher.judged)


def best_trial(case: Case, trials: Sequence[Trial], whole: float, shrink: float) -> Trial:
    """The trial to go on with; `shrink`: the share of what a trial loses that should remain after long training.

    With a bound on latency, the best within it; with other costs bounded alone, the best; else the fastest whose loss
    should keep the bound on the drop, or the best if none should.
    """
    latency, drop = case.limit("latency"), case.limit("drop")
    if latency is not None:
        within = [t for t in trials if t.values["latency_ms"] <= latency] or [
            min(trials, key=lambda t: t.values["latency_ms"])
        ]
        return min(within, key=lambda t: t.values["loss_points"])
    quality = case.limit("quality")
    if case.targets and drop is None and quality is None:
        return min(trials, key=lambda t: t.values["loss_points"])
    bound = drop if drop is not None else (100.0 - quality - whole if quality is not None else 1.0)
    able = [t for t in trials if t.values["drop_points"] * shrink <= bound]
    if not able:
        return min(trials, key=lambda t: t.values["loss_points"])
    return min(able, key=lambda t: t.values["latency_ms"])


def next_trial(case: Case, trials: Sequence[Trial], tried: Trial, drop: float) -> Trial | None:
    """What to spend the rest on: the next better trial where the bound is missed, else the fastest that may keep it.

    What the tried one gained by its long training the others are taken to gain too. None where nothing is worth it.
    """
    limit = case.limit("drop")
    bound = 1.0 if limit is None else limit
    at, lost = tried.values["latency_ms"], max(tried.values["drop_points"], 1e-6)
    if drop > bound:
        better = [t for t in trials if t.values["drop_points"] < tried.values["drop_points"]]
        slower = [t for t in better if t.values["latency_ms"] > at]
        return min(slower, key=lambda t: t.values["latency_ms"], default=None)
    faster = [t for t in trials if t.values["latency_ms"] < at and t.values["drop_points"] * drop / lost <= bound]
    return min(faster, key=lambda t: t.values["latency_ms"], default=None)


def better(case: Case, first: Chosen, second: Chosen) -> Chosen:
    """Of two trained architectures the faster that keeps the bound, else the one that loses less."""
    limit = case.limit("drop")
    bound = limit if limit is not None else 1.0
    able = [c for c in (first, second) if c.drop <= bound]
    if able:
        return min(able, key=lambda c: c.predicted_ms)
    return min((first, second), key=lambda c: c.drop)
