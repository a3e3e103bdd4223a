"""The verb `search`: a study of one space by one strategy, here, in processes, or on a cluster.

What is searched is a table, a space with an evaluator of the user's, or, from nothing, networks for data (scratch.py).

    RUN/plan.json     what was asked for
    RUN/study.db      the trials (elsewhere with `store`)
    RUN/front.json    the trials that no other beats, once the study has ended
    RUN/search.html   how the search went: best so far, what mattered, why the best was chosen

Any number of processes and machines may run `resume RUN` at once: each takes a share of the trials.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from archsmith.errors import ArchsmithError, BadInput, BudgetNotReachable
from archsmith.evaluate.benchmark import Benchmark, LookedUp
from archsmith.evaluate.from_scratch import check_resource
from archsmith.evaluate.limited import Limited
from archsmith.evaluate.named import Named
from archsmith.jobs import judging, oneshot, pacing, past, scratch
from archsmith.jobs.asked import TRACKERS, Asked, read_asked, store_of
from archsmith.jobs.bench import FIDELITIES, READS_PRIOR, made, parsed, tried_out
from archsmith.jobs.case import check, check_perplexity
from archsmith.jobs.ground import Scratch, grounded
from archsmith.jobs.scratch import Making
from archsmith.jobs.target import parse_targets
from archsmith.model.pretrained import read_json
from archsmith.report.plain import write_text
from archsmith.report.searched import Aim, write_searched
from archsmith.report.terminal import Progress
from archsmith.search import STRATEGIES, strategy, with_prior, within
from archsmith.search.candidates import Features
from archsmith.search.meta import learnt_prior
from archsmith.space import JSON, Space
from archsmith.study import Executor, Inline, LocalProcesses, RunDirectory, Store, run
from archsmith.study.directory import logged
from archsmith.study.ray_workers import RayWorkers
from archsmith.train.recipe import Recipe
from archsmith.trial import Evaluator, Strategy, Trial, pareto, whole

SHOWN = 300  # letters of a reason; the trials have all of it
NUMBER = re.compile(r"\d+(\.\d+)?")  # in which reasons of one kind differ


@dataclass(frozen=True)
class Prepared:
    """What a study is made of."""

    space: Space
    evaluator: Evaluator
    objectives: tuple[str, ...]
    strategy: Strategy


def search(out: str | Path, asked: Asked, progress: Progress | None = None) -> list[Trial]:
    """Begin a search in a folder that is absent or empty; its front, by the first objective.

    Raises `BadInput` for a request that cannot be carried out; the folder is then as it was. From nothing, the winner
    is trained and handed over in the end, and `BudgetNotReachable` is raised where it misses a target.
    """
    asked.check()
    asked = asked.anywhere()
    taught = past.read_past(asked.past, lambda run: store_of(run, read_asked(run)))
    prepared = _prepared(asked, taught)
    space, objectives = prepared.space, prepared.objectives
    tried_out(prepared.strategy, asked.strategy, space, objectives)
    _executor(asked).close()  # a cluster that is not there, and a store of another search, are said before
    RunDirectory.check_new(out)
    if asked.store is not None:
        Store.open(asked.store, space, objectives, asked.seed, asked.evaluates()).close()
    with RunDirectory.create(out, {"search": asdict(asked)}):
        if taught:
            past.keep(taught, Path(out))
    return _worked(Path(out), asked, prepared, progress or Progress())  # from here on any process may join


def follow(out: Path, asked: Asked, progress: Progress | None = None) -> list[Trial]:
    """Join a search, or go on with it; its front, by the first objective."""
    taught = past.kept(out) or past.read_past(asked.past, lambda run: store_of(run, read_asked(run)))
    return _worked(out, asked, _prepared(asked, taught), progress or Progress())


def _worked(out: Path, asked: Asked, prepared: Prepared, progress: Progress) -> list[Trial]:
    began, minutes = time.monotonic(), asked.minutes
    if asked.scratch is not None:
        with RunDirectory.open(out, wait=True) as held:  # the first to come does it, the others wait and read
            prepared = _begun(held, asked, asked.scratch, prepared, progress)
        minutes = pacing.left(asked.minutes, time.monotonic() - began)
    trials = _tried(out, asked, prepared, minutes, progress)
    front = pareto(whole(trials), prepared.objectives)
    write_text(out / "front.json", json.dumps(front_of(trials, front, prepared.objectives), indent=1))
    where = asked.space or (asked.scratch.space if asked.scratch else "")
    title = f"{asked.strategy} on {(asked.benchmark or Path(where).stem).partition('=')[0]}"
    aim = Aim(title, prepared.objectives, asked.trials, asked.patience)
    write_searched(trials, prepared.space, out, aim, scratch.chosen_of(asked.scratch, trials, out))
    if course := read_json(out / "search.json")["course"]:
        progress.say(course)
    if not any(trial.status == "complete" for trial in trials):
        raise _nothing(out, asked.scratch, trials)
    if asked.scratch is not None:
        with RunDirectory.open(out, wait=True) as held:
            # What a killed process did, or others before this one came, is in the run.
            tried = sum(trial.seconds for trial in trials) / max(1, asked.workers or 1)
            spent = max(time.monotonic() - began, sum(held.seconds().values()) + tried)
            scratch.hand_over(held, asked.scratch, trials, progress, spent)
    return front


def _begun(held: RunDirectory, asked: Asked, wanted: Scratch, prepared: Prepared, progress: Progress) -> Prepared:
    """What comes before the trials of a search from nothing: how long each is trained, what untrained ones are judged
    against, and the weights that all share."""
    scratch.remember_inputs(held, wanted)
    method, judge = oneshot.method_of(*parsed(asked.strategy)), judging.judge_of(asked.evaluator)
    timed = partial(oneshot.seconds_a_step, wanted, method) if method else None
    pacing.pace(held, wanted, asked.trials, asked.minutes, timed, judge.share)
    against = judging.reference(held, wanted, judge, progress)
    evaluator: Evaluator
    chosen = prepared.strategy
    if method:
        evaluator = oneshot.Sharing(wanted, str(held.path.absolute()))
        chosen = oneshot.share(held, wanted, method, prepared.objectives, asked.trials, progress) or chosen
    else:
        recipe = pacing.recipes(held.path, wanted)[0]
        evaluator = Making(wanted, recipe, judge, against, pacing.pacing_of(held.path))
    if scratch.on_costs(wanted):
        chosen = within(chosen, partial(scratch.allowed, wanted))
    return replace(prepared, evaluator=evaluator, strategy=chosen)


def _tried(out: Path, asked: Asked, prepared: Prepared, minutes: float | None, progress: Progress) -> list[Trial]:
    """All trials of the study, once those that are left have been made."""
    evaluator = prepared.evaluator
    with ExitStack() as stack:
        stack.enter_context(logged(out))
        trackers = [stack.enter_context(closing(TRACKERS[name](out / name))) for name in asked.track]
        if asked.trial_minutes is not None or asked.trial_gigabytes is not None:
            evaluator = stack.enter_context(closing(Limited(evaluator, asked.trial_minutes, asked.trial_gigabytes)))

        def tell(trial: Trial) -> None:
            for tracker in trackers:
                tracker.on_trial(trial)
            progress.step("search", trial.number + 1, asked.trials)

        return run(
            prepared.space,
            prepared.strategy,
            evaluator,
            trials=asked.trials,
            store=store_of(out, asked),
            evaluates=asked.evaluates(),
            seed=asked.seed,
            objectives=prepared.objectives,
            executor=_executor(asked),
            on_trial=tell,
            minutes=minutes,
            patience=asked.patience,
            stop=partial(scratch.is_chosen, out) if asked.scratch is not None else None,
        )


def _nothing(out: Path, wanted: Scratch | None, trials: list[Trial]) -> ArchsmithError:
    """Why no trial ended well."""
    if wanted is not None and (missed := scratch.unreached(wanted, trials)):
        return BudgetNotReachable(f"{missed}. What was tried is in {out}. Search smaller networks, or allow more.")
    alike = Counter(NUMBER.sub("0", trial.error) for trial in trials if trial.error)
    kind = max(alike, key=alike.__getitem__, default="")
    reasons = [trial.error for trial in trials if trial.error and NUMBER.sub("0", trial.error) == kind]
    common = reasons[0][:SHOWN] if reasons else "none was tried"
    return ArchsmithError(
        f"no trial ended well; the commonest reason: {common.rstrip('.')}. What was tried is in {out}."
    )


def front_of(trials: list[Trial], front: list[Trial], objectives: tuple[str, ...]) -> JSON:
    """What a search found, as JSON."""
    ended = {status: sum(trial.status == status for trial in trials) for status in ("complete", "failed")}
    rows = [
        {
            "trial": trial.number,
            "architecture": dict(trial.proposal.architecture),
            "fidelity": dict(trial.proposal.fidelity),
            "values": dict(trial.values),
        }
        for trial in front
    ]
    reasons = sorted({trial.error for trial in trials if trial.error})
    return {"objectives": list(objectives), "trials": ended, "front": rows, "reasons": reasons[:10]}


def _prepared(asked: Asked, taught: past.Past) -> Prepared:
    """Raises `BadInput` for what cannot be used."""
    if asked.benchmark is not None:
        return _of_a_table(asked, asked.benchmark, taught)
    if asked.scratch is not None:
        return _of_networks(asked, asked.scratch, taught)
    try:
        space = Space.from_json(read_json(Path(str(asked.space))))
    except BadInput as error:
        raise error.within(str(asked.space)) from error
    evaluator = Named(str(asked.evaluator), asked.folder or str(Path.cwd()))
    evaluator.check()
    name, options = parsed(asked.strategy)
    if oneshot.method_of(name, options):
        oneshot.check(name, None)
    make = partial(strategy, name, asked.objectives, budget=asked.trials, **options)
    warm = _warmed(asked.strategy, asked.trials, space, make, taught, _highest(name, options))
    return Prepared(space, evaluator, asked.objectives, warm)


def _of_a_table(asked: Asked, benchmark: str, taught: past.Past) -> Prepared:
    """Networks that others have trained."""
    table = Benchmark(benchmark).table()
    objectives = asked.objectives or (table.objective,)
    unknown = [name for name in objectives if name not in table.columns]
    if unknown:
        known = f"there are: {', '.join(table.columns)}"
        raise BadInput("an objective is a column of the table", unknown[0], table.name, known)
    make = partial(made, asked.strategy, table, asked.trials, objectives)
    whole_epochs = {"epochs": table.epochs[-1]} if parsed(asked.strategy)[0] in FIDELITIES else None
    warm = _warmed(asked.strategy, asked.trials, table.space, make, taught, whole_epochs, table.features)
    return Prepared(table.space, LookedUp(benchmark, objectives), objectives, warm)


def _of_networks(asked: Asked, wanted: Scratch, taught: past.Past) -> Prepared:
    """Networks for data, that are made here; how long each is trained is not known yet."""
    name, options = parsed(asked.strategy)
    if name not in STRATEGIES and name not in oneshot.METHODS:
        remedy = f"there are: {', '.join((*STRATEGIES, *oneshot.METHODS))}"
        raise BadInput("a strategy is one that is known", repr(name), "--strategy", remedy)
    one_shot = name if oneshot.method_of(name, options) else None
    if one_shot:
        oneshot.check(name, wanted)
        name, options = "evolution", {}
    judge = judging.check(asked.evaluator, wanted, one_shot)
    if name in FIDELITIES:
        check_resource(grounded(wanted)[0], options.get("resource", "epochs"))
    check(wanted.request)
    check_perplexity(wanted.request)
    space, objectives = grounded(wanted)[1].space, asked.objectives or (judge.objective,)
    timed = any(target.metric == "latency" for target in parse_targets(wanted.targets))
    values = (*judge.values, *(["latency_ms"] if timed else []))
    known = f"there are: {', '.join(values)}"
    if unknown := [each for each in objectives if each not in values]:
        raise BadInput("an objective is what a trial measures", unknown[0], "--objective", known)
    if beyond := [each for each in options.get("limits") or {} if each not in values]:
        raise BadInput("limits are on what a trial measures", beyond[0], "--strategy", known)
    make = partial(strategy, name, objectives, budget=asked.trials, **options)
    warm = _warmed(asked.strategy, asked.trials, space, make, taught, _highest(name, options))
    return Prepared(space, Making(wanted, Recipe(steps=1), judge), objectives, warm)


def _highest(name: str, options: Mapping[str, Any]) -> dict[str, float] | None:
    """The fidelity of a whole evaluation, of a strategy that has several."""
    levels = options.get("levels")
    if name not in FIDELITIES or not isinstance(levels, list) or not levels:
        return None
    return {options.get("resource", "epochs"): levels[-1]}


def _warmed(
    name: str,
    trials: int,
    space: Space,
    make: Callable[..., Strategy],
    taught: past.Past,
    fidelity: Mapping[str, float] | None = None,
    features: Features | None = None,
) -> Strategy:
    """The strategy with what earlier runs teach, where there are any: as its own prior if it takes one, or else as
    what it proposes first, at this fidelity."""
    if not taught:
        return make()
    prior = learnt_prior(space, taught, features)
    if parsed(name)[0] in READS_PRIOR:
        return make(prior=prior)
    return with_prior(make(), prior, first=max(5, trials // 10), fidelity=fidelity)


def _executor(asked: Asked) -> Executor:
    if asked.executor == "ray":
        return RayWorkers(asked.workers, asked.address)
    return LocalProcesses(asked.workers) if asked.workers is not None and asked.workers > 1 else Inline()
