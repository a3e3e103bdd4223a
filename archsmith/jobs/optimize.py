"""The main job: a model that is too slow goes in, the best architecture inside it that meets the budget comes out.

It reads as it goes: measure the original, stop if a faster runtime is enough; see what can change; rank, model the
latency, score the blocks, select; remember the original's answers, try, train; ship, load back, measure on the holdout.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.jobs import choice, remember, shipping, stages, training
from archsmith.jobs.case import Case, Request, prepare, prepared, there
from archsmith.jobs.tell import tell
from archsmith.jobs.verdict import free_win, uncut, unmet
from archsmith.report.result import Result
from archsmith.report.terminal import Progress
from archsmith.study import RunDirectory
from archsmith.study.directory import LOCK, PLAN_PART
from archsmith.tasks import Task

BEGUN = {LOCK, PLAN_PART}  # all that a process leaves that is killed while it creates the run
TARGETS = ("drop<=1.0",)  # what is taken where no target is given


def optimize(
    model: str | nn.Module,
    task: str | Task,
    *,
    data: str | None = None,
    validation: str | None = None,
    holdout: str | None = None,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    metric: str | None = None,
    targets: Sequence[str] = (),
    runtime: str = "all",
    threads: int = 1,
    batch: int = 1,
    length: int = 128,
    minutes: float = 20.0,
    seed: int = 0,
    out: str | Path = "runs/optimize",
    allow_code: bool = False,
    example: Any = None,
    progress: Progress | None = None,
) -> Result:
    """Search the best architecture inside a trained model within a budget.

    Args:
        model: a folder, a hub id, `package.module:factory` (with `allow_code`), or a module (with `task` an object).
        task: "text-classification" or "sentence-embedding" (then `data` is needed), or a task that you made.
        targets: lines such as "drop<=1.0" (points below the original), "latency<=5ms", "size<=20MB"; without any,
            "drop<=1.0".
        length: tokens of the call that latency is measured on; `batch` its rows; `threads` its threads.
        out: the run's folder, new or empty.
        example: keyword inputs of a module that is not a transformers model.

    Raises:
        BadInput: something given cannot be used; nothing has been written.
        BudgetNotReachable: a target is not met; the best that was found lies in `out`, `result.json` says by how much.
    """
    request = Request(
        model=located(model) if isinstance(model, str) else type(model).__name__,
        task=task if isinstance(task, str) else task.name,
        data=located(data) if data is not None else "",
        validation=located(validation) if validation is not None else None,
        holdout=located(holdout) if holdout is not None else None,
        text=((text,) if isinstance(text, str) else tuple(text)) if text else None,
        label=label,
        metric=metric,
        targets=tuple(targets) or TARGETS,
        runtime=runtime,
        threads=threads,
        batch=batch,
        length=length,
        minutes=minutes,
        seed=seed,
        allow_code=allow_code,
    )
    check_out(Path(out))
    if isinstance(task, str):
        if not isinstance(model, str):
            raise BadInput("a module comes with a task object", repr(task), "task", "make one with TextClassification")
        if not request.data:
            raise BadInput("a task needs data", "none", "--data", "name a file")
        case = prepare(request)
    else:
        case = prepared(request, model, task, example)
    return start(case, out, progress)


def located(name: str | Path) -> str:
    """A name as `resume` finds it from any folder: what exists here by its whole path, else a name of a hub."""
    return str(Path(name).resolve()) if there(name) else str(name)


def start(case: Case, out: str | Path, progress: Progress | None = None) -> Result:
    """A new run of a case."""
    check_out(Path(out), case)
    shipping.check_saved(case)
    with RunDirectory.create(out, case.request.to_json()) as run:
        return follow(case, run, progress or Progress())


def check_out(out: Path, case: Case | None = None) -> None:
    """The run's folder is new or empty, and not in the model's, said before any work is done."""
    remedy = "name another with --out"
    try:
        if there(out) and (not out.is_dir() or {entry.name for entry in out.iterdir()} - BEGUN):
            raise BadInput("a new run needs an empty folder", "files", str(out), remedy)
    except OSError as error:
        raise BadInput("a run's folder must be writable", str(error.strerror), str(out), remedy) from None
    folder = case.loaded.folder if case is not None else None
    if folder is not None and folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise BadInput("nothing is written into the model's own folder", str(out), "--out", remedy)


def follow(case: Case, run: RunDirectory, progress: Progress) -> Result:
    """The story, stage by stage; a stage that has been recorded is not done again."""
    work = stages.Work(case, run, progress)
    stages.remember_inputs(work)
    if case.limit("quality") is not None and not case.request.validation and case.request.data:
        progress.say("quality is that on rows split off --data; if the model was trained on them, give --validation")
    original = stages.original(work)
    win = free_win(case, original)
    if win is not None:
        progress.say(f"{win.runtime} {win.precision} alone meets every target; nothing is cut")
        shipped = shipping.ship_original(work)
    else:
        anatomy = stages.examine_model(work)
        teacher = stages.sort_units(work, anatomy)
        terrain = stages.survey(work, teacher, original)
        terrain, points = stages.calibrate(work, teacher, terrain, stages.select(work, teacher, terrain))
        plan = remember.plan(work, original)
        teacher = remember.remember(work, teacher, original, plan)
        trials = training.search(work, teacher, terrain, points, plan)
        chosen = training.train(work, teacher, terrain, points, trials, plan)
        whole = uncut(case, original, chosen.least_drop, choice.bound_of(case, teacher))
        if whole is not None:
            progress.say(
                f"no smaller network keeps the targets; the original does in {whole.runtime} {whole.precision}"
            )
        shipped = shipping.ship(work, teacher, chosen) if whole is None else shipping.ship_original(work)
    final = shipping.measure_all(work, shipped)
    result = tell(work, original, final)
    missed = unmet(result)
    if missed:
        raise BudgetNotReachable(missed)
    return result
