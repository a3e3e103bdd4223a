"""From data and a space, no model: the task, the networks, the trials, and the winner, which is handed over like any
model that `optimize` is given: on every runtime and precision, measured, with its holdout and its report.

One dial, `minutes`: a few networks of the space are trained for some steps at the start, and their pace says how many
steps each trial and the winner have. `RUN/stages/pace.json` keeps it, so that every process goes by the same plan.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from torch import nn

from archsmith.build import Blueprint
from archsmith.cost import RUNTIMES, arrays, pinned, sample_times
from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.evaluate.from_scratch import SHORTEST, FromScratch, Ground, quicker
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.untrained import Reference
from archsmith.jobs import shipping, stages
from archsmith.jobs.case import Case, runs
from archsmith.jobs.ground import TASKS, Scratch, grounded
from archsmith.jobs.judging import Judge
from archsmith.jobs.target import Target, parse_targets
from archsmith.jobs.tell import tell
from archsmith.jobs.verdict import unmet
from archsmith.model.load import Loaded
from archsmith.model.pretrained import read_json
from archsmith.report.drawn import drawn
from archsmith.report.plain import write_text
from archsmith.report.result import Result
from archsmith.report.terminal import Progress
from archsmith.space import JSON, Architecture
from archsmith.study import RunDirectory
from archsmith.tasks import ImageClassification, SeriesForecasting, Task
from archsmith.tasks.answer import answers, calling
from archsmith.train.parallel import Share, together
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal, Trial, whole

SEARCHING, FINISHING = 0.65, 0.25  # shares of the minutes for all trials, and for the winner
CHOSEN, LENGTH = "chosen", "length"  # the stages that say which network won, and how long it is trained
SHARED = 1.3  # of the searching time the weights' training leaves room for judging networks
CHECKS = 10  # of the winner on validation: small data are learnt by heart before training ends
PACED = 5  # networks that are timed
LONG = 60.0  # seconds of a winner's training that it is worth to time bf16 for
EPOCHS = 3.0  # of a trial where no minutes are given; the winner has ten times as many
QUICK = 10  # times the usual steps that a trial has at most
SHIFT = 1 / 8  # of a picture's side


@dataclass(frozen=True)
class Pacing:
    """How many steps a trial has in the seconds that it is given: what counts is what a network reaches in the time
    that there is, and a quick one sees more data in it. A step takes `base` seconds and `per_mac` for each
    multiply-accumulate of a row; both were fitted to a few networks, so that a network always has the same steps.

    >>> Pacing(10.0, 0.01, 1e-9).steps(90e6, 100), Pacing(10.0, 0.01, 1e-9).steps(0.0, 20)
    (100, 200)
    """

    seconds: float
    base: float
    per_mac: float

    def steps(self, macs: float, usual: int) -> int:
        """Of a network with so many multiply-accumulates; at most so many times the usual."""
        return int(np.clip(self.seconds / (self.base + self.per_mac * macs), 10, max(10, QUICK * usual)))


@dataclass(frozen=True)
class Making:
    """The evaluator of a search from nothing, as plain data, so that it goes to any process.

    A network that no target on its own costs allows fails before it is trained.
    """

    scratch: Scratch
    recipe: Recipe
    judge: Judge = field(default_factory=Judge)
    reference: Reference = ()
    pacing: Pacing | None = None

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Build and judge one network."""
        ground, blueprint = grounded(self.scratch)
        check_costs(self.scratch, ground, blueprint, proposal.architecture)
        timed = within_latency(self.scratch, ground, blueprint, proposal.architecture)
        recipe = self.recipe
        maker = FromScratch(ground, blueprint, recipe, self.scratch.seed)
        if self.pacing is not None:
            share = maker.recipe_at(Proposal(proposal.architecture)).batch / recipe.batch
            macs = share * paper_costs(ground.plan(blueprint, proposal.architecture))["macs"]
            maker = replace(maker, recipe=replace(recipe, steps=self.pacing.steps(macs, recipe.steps)))
        return {**self.judge.evaluator(maker, self.reference)(proposal, rng), **timed}


def check_costs(scratch: Scratch, ground: Ground, blueprint: Blueprint, architecture: Architecture) -> None:
    """Raise `ValueError` for a network that a target on its costs rules out."""
    too_much = [f"{target}: {value:,.0f}" for target, value in over(scratch, ground, blueprint, architecture)]
    if too_much:
        raise ValueError(f"it is over {', '.join(too_much)}")


def within_latency(
    scratch: Scratch, ground: Ground, blueprint: Blueprint, architecture: Architecture
) -> dict[str, float]:
    """`latency_ms` where a target bounds it: of the untrained network, exported to the runtime asked for (ONNX Runtime
    where any will do), in fp32, one row. Raises `ValueError` where it is over."""
    target = next((each for each in parse_targets(scratch.targets) if each.metric == "latency"), None)
    if target is None:
        return {}
    wrapped = ground.task.wrap(ground.module(ground.plan(blueprint, architecture), scratch.seed)).eval()
    median = exported_ms(scratch, ground.task, wrapped)
    if not target.met(median):
        raise ValueError(f"it is over {target}: {median:.3g} ms")
    return {"latency_ms": median}


def exported_ms(scratch: Scratch, task: Task, wrapped: nn.Module) -> float:
    """Milliseconds of one row on the runtime asked for (ONNX Runtime where any will do), in fp32, one thread."""
    runtime = RUNTIMES["onnxruntime" if scratch.runtime == "all" else scratch.runtime]()
    with tempfile.TemporaryDirectory() as folder, pinned(1):
        file = runtime.export(wrapped, task.example(2, SHORTEST), task.dynamic(), Path(folder))
        session, inputs = runtime.open(file, 1), arrays(task.example(1, scratch.length))
        times = sample_times({"": lambda: session(inputs)}, 50, 3, np.random.default_rng(0), 3.0)
    return float(np.median(times[""]))


def unreached(scratch: Scratch, trials: Sequence[Trial]) -> str:
    """Where every network that was tried is over the same target on its costs, how near the nearest came; else
    empty."""
    ground, blueprint = grounded(scratch)
    try:
        misses = [dict(over(scratch, ground, blueprint, trial.proposal.architecture)) for trial in trials]
    except BadInput:
        return ""  # one could not be built: costs are not what all have in common
    always = [target for target in misses[0] if all(target in each for each in misses)] if misses else []
    least = {target: min(each[target] for each in misses) for target in always}
    return ", ".join(
        f"{target} was met by none of {len(misses)} networks; the least was {value:,.0f}"
        for target, value in least.items()
    )


def over(
    scratch: Scratch, ground: Ground, blueprint: Blueprint, architecture: Architecture
) -> list[tuple[Target, float]]:
    """The targets on parameters, MACs and size that a network misses on paper, and what it has of each, in the base
    unit."""
    costs = paper_costs(ground.plan(blueprint, architecture))
    known = {"parameters": costs["parameters"], "macs": costs["macs"], "size": costs["weight_bytes"]}
    # int8 weights take a quarter.
    known["size"] /= 4
    targets = parse_targets(scratch.targets)
    costly = [(target, known[target.metric]) for target in targets if target.metric in known]
    return [(target, value) for target, value in costly if not target.met(value)]


def recipe_of(ground: Ground) -> Recipe:
    """How networks of a task are trained, but for the steps: pictures are moved and flipped, batches fit the data."""
    rows = ground.task.size("train")
    batch = int(np.clip(2 ** round(np.log2(max(1, rows / 100))), 16, 128))
    pictures = len(ground.signal.shape) == 3
    shift = round(SHIFT * min(ground.signal.shape[1:])) if pictures else 0
    # Grey pictures are digits and letters as a rule, which mean something else in a mirror.
    smoothing = 0.05 if "classes" in ground.given else 0.0
    return Recipe(steps=1, batch=batch, smoothing=smoothing, shift=shift, flip=pictures and ground.signal.channels > 1)


def pace(
    run: RunDirectory,
    scratch: Scratch,
    trials: int,
    minutes: float | None,
    shared: Callable[[Recipe], float] | None = None,
    share: float = 1.0,
) -> None:
    """Plan the steps of a trial and of the winner: by the clock where minutes are given, else by passes; and whether
    they are taken in bf16, where it is quicker here. Where trials share weights, the steps are those of the weights;
    `shared`: seconds that one takes by a recipe. `share`: of a trial's steps that are gone; where trials are not
    trained, their time is the winner's."""
    ground, blueprint = grounded(scratch)
    recipe = recipe_of(ground)
    a_pass = max(1, ground.task.size("train") // recipe.batch)

    def measure(folder: Path) -> JSON:
        rng, maker = np.random.default_rng([scratch.seed, 3]), FromScratch(ground, blueprint, recipe, scratch.seed)
        drawn = [ground.drawn(blueprint, rng) for _ in range(PACED)]
        own = [replace(maker, recipe=maker.recipe_at(Proposal(architecture))) for architecture, _ in drawn]

        def seconds(bf16: bool, networks: int = PACED) -> list[float]:
            pairs = zip(own[:networks], drawn[:networks], strict=True)
            return [each.step_seconds(plan, bf16) for each, (_, plan) in pairs]

        if minutes is None:
            steps = round(EPOCHS * a_pass)
            long = 10 * steps * seconds(False, 1)[0] > LONG
            autocast = long and quicker(partial(seconds, networks=1))[0]
            return {"trial_steps": (10 if shared else 1) * steps, "winner_steps": 10 * steps, "autocast": autocast}
        autocast, each_took = quicker(seconds)
        took = np.array(each_took)
        shares = [each.recipe.batch / recipe.batch for each in own]
        macs = np.array([share * paper_costs(plan)["macs"] for share, (_, plan) in zip(shares, drawn, strict=True)])
        step = float(took.mean())
        base, per_mac = nnls(np.stack([np.ones(PACED), macs / (macs.max() or 1.0)], axis=1), took)[0].tolist()
        searching = SEARCHING * minutes * 60
        if shared:
            autocast, (a_step,) = quicker(lambda bf16: [shared(replace(recipe, autocast=bf16))])
            each = searching / a_step / SHARED
        else:
            each = searching / step / trials / share if share else 0
        winning = 60 * minutes * (FINISHING if share else SEARCHING + FINISHING)
        return {
            "seconds_a_step": step,
            "autocast": autocast,
            "trial_steps": max(10, round(each)),
            "winner_steps": max(10, round(winning / step)),
            "winner_seconds": winning,
            "pacing": [searching / trials / share, max(base, took.min() / 4), per_mac / (macs.max() or 1.0)]
            if share and not shared
            else None,
        }

    run.stage("pace", measure)


def remember_inputs(run: RunDirectory, scratch: Scratch) -> None:
    """Check that data and space are those that the run began with. Raises `BadInput` where one has changed."""
    named = [name for name in (scratch.data, scratch.validation, scratch.holdout, scratch.space) if name]
    now = {name: stages.digest(Path(name)) for name in named if Path(name).is_file()}
    began = run.stage("inputs", lambda folder: dict(now))
    changed = [name for name, sha256 in began.items() if now.get(name) != sha256]
    if changed:
        law = "a run goes on with the data and the space that it began with"
        raise BadInput(law, "other content", changed[0], "put the file back, or begin a new run")


def settle_length(run: RunDirectory, scratch: Scratch, winner: Architecture) -> None:
    """How many steps the winner has: by its own pace, now that it is known, in the seconds that were planned for it."""

    def measure(folder: Path) -> JSON:
        planned, (ground, blueprint) = read_json(run.path / "stages" / "pace.json")["result"], grounded(scratch)
        if "winner_seconds" not in planned:
            return {"steps": planned["winner_steps"], "autocast": planned.get("autocast", False)}
        maker = FromScratch(ground, blueprint, recipe_of(ground), scratch.seed)
        own = replace(maker, recipe=maker.recipe_at(Proposal(winner)))
        plan = ground.plan(blueprint, winner)
        autocast, (step,) = quicker(lambda bf16: [own.step_seconds(plan, bf16)])
        return {
            "steps": max(10, round(planned["winner_seconds"] / step)),
            "seconds_a_step": step,
            "autocast": autocast,
        }

    run.stage(LENGTH, measure)


def pacing_of(out: Path) -> Pacing | None:
    """How trials are paced, as it was planned; None where each has the same steps."""
    told = read_json(out / "stages" / "pace.json")["result"].get("pacing")
    return Pacing(*told) if told else None


def recipes(out: Path, scratch: Scratch) -> tuple[Recipe, Recipe]:
    """That of a trial and that of the winner, as they were planned."""
    planned, settled = read_json(out / "stages" / "pace.json")["result"], out / "stages" / f"{LENGTH}.json"
    length = read_json(settled)["result"] if settled.exists() else {"steps": planned["winner_steps"]}
    recipe = recipe_of(grounded(scratch)[0])
    trial = replace(recipe, steps=int(planned["trial_steps"]), autocast=planned.get("autocast", False))
    return trial, replace(recipe, steps=int(length["steps"]), autocast=length.get("autocast", False))


def hand_over(run: RunDirectory, scratch: Scratch, winner: Architecture, progress: Progress) -> Result:
    """Train the winner at full length and do with it what `optimize` does with a model that needs no cut.

    Raises `BudgetNotReachable` where it misses a target; all has been written then.
    """
    ground, blueprint = grounded(scratch)
    chosen = run.stage(CHOSEN, lambda folder: winner.to_json())
    plan = ground.plan(blueprint, Architecture.from_json(chosen))
    module = ground.module(plan, scratch.seed)
    settle_length(run, scratch, Architecture.from_json(chosen))

    def train(folder: Path) -> JSON:
        recipe = recipes(run.path, scratch)[1]

        def step(done: int) -> None:
            progress.step("winner", done, recipe.steps)

        given = (scratch, recipe, chosen, str(folder), str(run.path / "winner.checkpoint"))
        if scratch.processes > 1:
            together(train_winner, given, scratch.processes, tell=step)
        else:
            train_winner(None, step, *given)
        for left in run.path.glob("winner.*"):
            left.unlink()
        return {**read_json(folder / "fitted.json"), "architecture": chosen}

    run.stage("winner", train)
    task = TASKS[scratch.task](scratch)  # its holdout is sealed
    state = torch.load(run.folder("winner") / "weights.pt", weights_only=True)
    task.wrap(module).load_state_dict(state)
    example = task.inputs("train", [0, 1])
    tokenizer = getattr(task, "tokenizer", None)
    loaded = Loaded(module.eval(), tokenizer, f"found in {Path(scratch.space).stem}", "module", example=example)
    case = runs(Case(scratch.request, loaded, task, parse_targets(scratch.request.targets)))
    work = stages.Work(case, run, progress)
    original = stages.original(work)
    final = shipping.measure_all(work, shipping.ship_original(work))
    describe(task, run.path / "model")
    notes = told(run, task, loaded.model)
    for note in notes:
        progress.say(note)
    result = tell(work, original, final, notes, found=True)
    if missed := unmet(result):
        raise BudgetNotReachable(missed)
    return result


def train_winner(
    share: Share | None,
    tell: Callable[[int], None],
    scratch: Scratch,
    recipe: Recipe,
    chosen: JSON,
    folder: str,
    checkpoint: str,
) -> None:
    """Train the winner, or in one of several processes the same one; the first writes its weights and how it went. One
    process alone goes on from the checkpoint of a killed one."""
    ground, blueprint = grounded(scratch)
    maker = FromScratch(ground, blueprint, recipe, scratch.seed, progress=tell)
    winner = Architecture.from_json(chosen)
    own = maker.recipe_at(Proposal(winner))
    plan, kept = ground.plan(blueprint, winner), None if share else Path(checkpoint)
    trained, fitted = maker.annealed(plan, own, checks=CHECKS, checkpoint=kept, share=share)
    if share is None or share.rank == 0:
        torch.save(trained.state_dict(), Path(folder) / "weights.pt")
        said = {"steps": fitted.steps, "loss": fitted.loss}
        write_text(Path(folder) / "fitted.json", json.dumps(said))


def told(run: RunDirectory, task: Task, model: nn.Module) -> tuple[str, ...]:
    """Lines for the report on what points do not say: of a forecast its errors beside those of two simple ones, which
    `RUN/forecast.json` has too, all on the holdout."""
    if not isinstance(task, SeriesForecasting):
        return ()

    def measure(folder: Path) -> JSON:
        if not task.holdout_opened:  # what decides has been measured before
            task.open_holdout()
        season = task.season()
        forecasts = {
            "found": answers(calling(task.wrap(model).eval()), task, "holdout"),
            "last value": task.naive("holdout"),
            f"last {season} steps again": task.naive("holdout", season),
        }
        return {name: task.errors(task.judge(each, "holdout")) for name, each in forecasts.items()}

    errors = run.stage("forecast", measure)
    write_text(run.path / "forecast.json", json.dumps(errors, indent=1))
    lines = [f"{name}: MSE {of['mse']:.4g}, MAE {of['mae']:.4g}, R2 {of['r2']:.3f}" for name, of in errors.items()]
    return (f"Foretold: {', '.join(task.scaling.targets)}. On the holdout, of scaled values: {'; '.join(lines)}.",)


def describe(task: Task, folder: Path) -> None:
    """Write beside the network what its inputs and outputs mean: how numbers are scaled, which class is which."""
    if names := getattr(task, "label_names", {}):
        labels = {str(number): name for name, number in sorted(names.items(), key=lambda pair: pair[1])}
        write_text(folder / "labels.json", json.dumps({"id2label": labels}, indent=1, ensure_ascii=False))
    if isinstance(task, SeriesForecasting):
        write_text(folder / "preprocessor_config.json", json.dumps(asdict(task.scaling), indent=1, ensure_ascii=False))
    if isinstance(task, ImageClassification):
        prepared = task.prepared
        said = {
            "do_resize": True, "do_rescale": True, "do_normalize": True,
            "size": {"height": prepared.height, "width": prepared.width},
            "image_mean": list(prepared.mean), "image_std": list(prepared.std),
        }  # fmt: skip
        write_text(folder / "preprocessor_config.json", json.dumps(said, indent=1))


def is_chosen(out: Path) -> bool:
    """Whether a winner has been chosen; nothing is tried any more then."""
    return (out / "stages" / f"{CHOSEN}.json").exists()


def picture_of(scratch: Scratch | None, trials: Sequence[Trial]) -> str:
    """HTML of the network that is handed over; empty where no networks are searched, or none was found."""
    if scratch is None or not any(trial.status == "complete" for trial in trials):
        return ""
    ground, blueprint = grounded(scratch)
    return drawn(ground.plan(blueprint, best_of(trials)))


def best_of(trials: Sequence[Trial]) -> Architecture:
    """The architecture that lost least, or ranked best without training, of those that were tried in full."""
    done = [trial for trial in whole(trials) if trial.status == "complete"]
    by = "loss_points" if all("loss_points" in trial.values for trial in done) else "rank_points"
    best: Architecture = min(done, key=lambda trial: (trial.values[by], trial.number)).proposal.architecture
    return best
