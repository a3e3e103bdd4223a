"""From data and a space, no model: the task, the networks, the trials, and the winner, which is handed over like any
model that `optimize` is given: on every runtime and precision, measured, with its holdout and its report.

How long each is trained is said by pacing.py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from archsmith.build import SPACES, Blueprint
from archsmith.cost import RUNTIMES, arrays, pinned, sample_times
from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.evaluate.from_scratch import SHORTEST, FromScratch, Ground
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.untrained import Reference
from archsmith.jobs import shipping, stages
from archsmith.jobs.case import Case, runs
from archsmith.jobs.ground import TASKS, Scratch, grounded
from archsmith.jobs.judging import Judge
from archsmith.jobs.pacing import Pacing, maker_of, recipes, settle_length
from archsmith.jobs.target import Target, parse_targets
from archsmith.jobs.tell import tell
from archsmith.jobs.verdict import met, unmet
from archsmith.model.load import Loaded
from archsmith.model.pretrained import read_json
from archsmith.report.drawn import drawn
from archsmith.report.plain import write_text
from archsmith.report.result import Result
from archsmith.report.searched import Chosen
from archsmith.report.terminal import Progress
from archsmith.space import JSON, Architecture
from archsmith.study import RunDirectory
from archsmith.tasks import ImageClassification, SeriesForecasting, Task
from archsmith.tasks.answer import answers, calling
from archsmith.train.parallel import Share, together
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal, Trial, whole

OVER = "it is over"  # how a trial begins that a target rules out
CHOSEN = "chosen"  # the stage that says which network won
CHECKS = 10  # of the winner on validation: small data are learnt by heart before training ends


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
        maker = FromScratch(ground, blueprint, self.trained(proposal.architecture), self.scratch.seed)
        return {**self.judge.evaluator(maker, self.reference)(proposal, rng), **timed}

    def trained(self, architecture: Architecture) -> Recipe:
        """How one network is: as long as others, by the clock where steps are paced, else by passes."""
        own = maker_of(self.scratch, architecture).recipe
        share = own.batch / self.recipe.batch
        if self.pacing is None:
            return replace(self.recipe, steps=max(1, round(self.recipe.steps / share)))
        ground, blueprint = grounded(self.scratch)
        macs = share * paper_costs(ground.plan(blueprint, architecture))["macs"]
        return replace(self.recipe, steps=self.pacing.steps(macs, self.recipe.steps))


def check_costs(scratch: Scratch, ground: Ground, blueprint: Blueprint, architecture: Architecture) -> None:
    """Raise `BudgetNotReachable` for a network that a target on its costs rules out."""
    too_much = [f"{target}: {value:,.0f}" for target, value in over(scratch, ground, blueprint, architecture)]
    if too_much:
        raise BudgetNotReachable(f"{OVER} {', '.join(too_much)}")


def allowed(scratch: Scratch, architecture: Architecture) -> bool:
    """Whether no target on its costs rules a network out; one that cannot be built is left to its trial."""
    try:
        return not over(scratch, *grounded(scratch), architecture)
    except BadInput:
        return True


def within_latency(
    scratch: Scratch, ground: Ground, blueprint: Blueprint, architecture: Architecture
) -> dict[str, float]:
    """`latency_ms` where a target bounds it: of the untrained network, exported to the runtime asked for (ONNX Runtime
    where any will do), in fp32, one row. Raises `BudgetNotReachable` where it is over."""
    target = next((each for each in parse_targets(scratch.targets) if each.metric == "latency"), None)
    if target is None:
        return {}
    wrapped = ground.task.wrap(ground.module(ground.plan(blueprint, architecture), scratch.seed)).eval()
    median = exported_ms(scratch, ground.task, wrapped)
    if not met(target, median):
        raise BudgetNotReachable(f"{OVER} {target}: {median:.3g} ms")
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
    """Where every network that was tried is over the same target on its costs or its latency, how near the nearest
    came; else empty."""
    ground, blueprint = grounded(scratch)
    try:
        misses = [dict(over(scratch, ground, blueprint, trial.proposal.architecture)) for trial in trials]
    except BadInput:
        return ""  # one could not be built: costs are not what all have in common
    for target in parse_targets(scratch.targets):
        for trial, missed in zip(trials, misses, strict=True):
            _, late, told = trial.error.partition(f"{OVER} {target}: ")
            if target.metric == "latency" and late:
                missed[target] = float(told.removesuffix(" ms"))
    always = [target for target in misses[0] if all(target in each for each in misses)] if misses else []
    least = {target: min(each[target] for each in misses) for target in always}
    return ", ".join(
        f"{target} was met by none of {len(misses)} networks; the least was "
        + (f"{value:.3g} ms" if target.metric == "latency" else f"{value:,.0f}")
        for target, value in least.items()
    )


def over(
    scratch: Scratch, ground: Ground, blueprint: Blueprint, architecture: Architecture
) -> list[tuple[Target, float]]:
    """The targets on parameters, MACs and size that a network misses on paper, and what it has of each, in the base
    unit."""
    targets = on_costs(scratch)
    if not targets:
        return []
    costs = paper_costs(ground.sketch(blueprint, architecture))
    # int8 weights take a quarter.
    known = {"parameters": costs["parameters"], "macs": costs["macs"], "size": costs["weight_bytes"] / 4}
    return [(target, known[target.metric]) for target in targets if not target.met(known[target.metric])]


def on_costs(scratch: Scratch) -> list[Target]:
    """The targets that a plan alone tells whether they are met."""
    return [each for each in parse_targets(scratch.targets) if each.metric in ("parameters", "macs", "size")]


def remember_inputs(run: RunDirectory, scratch: Scratch) -> None:
    """Check that data and space are those that the run began with. Raises `BadInput` where one has changed."""
    run.stage("inputs", lambda folder: dict(inputs_of(scratch)))
    check_inputs(run.path, scratch)


def inputs_of(scratch: Scratch) -> dict[str, str]:
    """What tells a file from another, or a folder by the names and sizes of its files."""
    space = None if scratch.space in SPACES else scratch.space
    named = [name for name in (scratch.data, scratch.validation, scratch.holdout, space) if name]
    return {name: stages.digest(Path(name)) for name in named if Path(name).exists()}


def check_inputs(run: Path, scratch: Scratch) -> None:
    """Raise `BadInput` where the data or the space of a run have changed."""
    began = read_json(run / "stages" / "inputs.json")["result"]
    stages.refuse_others(inputs_of(scratch), began, "data and the space")


def hand_over(
    run: RunDirectory, scratch: Scratch, trials: Sequence[Trial], progress: Progress, searched: float
) -> Result:
    """Train the best of the trials at full length and do with it what `optimize` does with a model that needs no cut.
    `searched`: seconds that are gone.

    Raises `BudgetNotReachable` where it misses a target; all has been written then.
    """
    ground, blueprint = grounded(scratch)
    chosen = run.stage(CHOSEN, lambda folder: best_of(trials).to_json())
    plan = ground.plan(blueprint, Architecture.from_json(chosen))
    module = ground.module(plan, scratch.seed)
    settle_length(run, scratch, Architecture.from_json(chosen), searched)

    def train(folder: Path) -> JSON:
        recipe = recipes(run.path, scratch)[1]

        def step(done: int) -> None:
            progress.step("winner", done, recipe.steps)

        given = (scratch, recipe, chosen, str(folder), str(run.path / "winner.checkpoint"))
        if scratch.processes > 1:
            together(train_winner, given, scratch.processes, tell=step)
        else:
            train_winner(None, step, *given)
        return {**read_json(folder / "fitted.json"), "architecture": chosen}

    run.stage("winner", train)
    for left in run.path.glob("winner.*"):
        left.unlink()
    task = TASKS[scratch.task](scratch)  # its holdout is sealed
    state = torch.load(run.folder("winner") / "weights.pt", weights_only=True)
    task.wrap(module).load_state_dict(state)
    example = task.inputs("train", [0, 1])
    tokenizer = getattr(task, "tokenizer", None)
    if tokenizer is not None:
        tokenizer.model_max_length = ground.signal.shape[0]  # what the network can read is what is handed to it
    loaded = Loaded(module.eval(), tokenizer, f"found in {Path(scratch.space).stem}", "module", example=example)
    case = runs(Case(scratch.request, loaded, task, parse_targets(scratch.request.targets)))
    work = stages.Work(case, run, progress)
    original = stages.original(work)
    final = shipping.measure_all(work, shipping.ship_original(work))
    describe(task, run.path / "model")
    notes = notes_on(run, task, loaded.model)
    for note in notes:
        progress.say(note)
    result = tell(work, original, final, notes, tried=sum(trial.seconds for trial in trials))
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
    """Train the winner, or in one of several processes the same one; the first writes its weights and how it went. They
    go on from the checkpoint of those that were killed."""
    ground, blueprint = grounded(scratch)
    maker = FromScratch(ground, blueprint, recipe, scratch.seed, progress=tell)
    winner = Architecture.from_json(chosen)
    own = maker.recipe_at(Proposal(winner))
    plan, kept = ground.plan(blueprint, winner), Path(checkpoint)
    trained, fitted = maker.annealed(plan, own, checks=CHECKS, checkpoint=kept, share=share)
    if share is None or share.rank == 0:
        torch.save(trained.state_dict(), Path(folder) / "weights.pt")
        said = {"steps": fitted.steps, "loss": fitted.loss, "seconds": fitted.seconds}
        write_text(Path(folder) / "fitted.json", json.dumps(said))


def notes_on(run: RunDirectory, task: Task, model: nn.Module) -> tuple[str, ...]:
    """Lines for the report on what points do not say: of pictures whether their sides were changed; of a forecast its
    errors beside those of two simple ones, which `RUN/forecast.json` has too, all on the holdout."""
    if isinstance(task, ImageClassification) and task.resized:
        size = f"{task.prepared.height} x {task.prepared.width}"
        return (f"Pictures of several sizes were brought to {size} pixels, the median of their sides.",)
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


def chosen_of(scratch: Scratch | None, trials: Sequence[Trial], out: Path) -> Chosen | None:
    """The network that is handed over, drawn; None where no networks are searched, or none was found."""
    if scratch is None or not any(trial.status == "complete" for trial in trials):
        return None
    ground, blueprint = grounded(scratch)
    best = Architecture.from_json(read_json(out / "stages" / f"{CHOSEN}.json")["result"]) if is_chosen(out) else None
    best = best or best_of(trials)
    return Chosen(best, judged_by(trials), drawn(ground.plan(blueprint, best)))


def best_of(trials: Sequence[Trial]) -> Architecture:
    """The architecture that lost least, or ranked best without training, of those that were tried in full."""
    done, by = [trial for trial in whole(trials) if trial.status == "complete"], judged_by(trials)
    best: Architecture = min(done, key=lambda trial: (trial.values[by], trial.number)).proposal.architecture
    return best


def judged_by(trials: Sequence[Trial]) -> str:
    """The value that says which network is the best."""
    done = [trial for trial in whole(trials) if trial.status == "complete"]
    return "loss_points" if all("loss_points" in trial.values for trial in done) else "rank_points"
