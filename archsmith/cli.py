"""The commands: parse, call a job, print. No logic; jobs are imported when they are called, so that help is quick."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsmith.errors import ArchsmithError, BudgetNotReachable

if TYPE_CHECKING:
    from archsmith.report.result import Result
    from archsmith.report.terminal import Progress

app = typer.Typer(
    name="archsmith",
    help="Finds the architecture that a trained model should have had.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

LOG = "archsmith.log"
"""The run's log, as `archsmith.study.directory` names it; not imported, since help must be quick."""

Model = Annotated[str, typer.Argument(help="A folder, a hub id, or package.module:factory with --allow-code.")]
Run = Annotated[Path, typer.Argument(help="A run's folder, as given to --out.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder, new or empty. Default: runs/DATE-TIME.")]
Minutes = Annotated[float, typer.Option(min=0.1, help="How long to work; the plan is made from it.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of everything that is random.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that the model will be served with.")]
Batch = Annotated[int, typer.Option(min=1, help="Examples in the call that is timed.")]
Length = Annotated[int, typer.Option(min=1, help="Tokens in the call that is timed.")]
Runtime = Annotated[str, typer.Option(help="pytorch, onnxruntime, openvino, or all.")]
TaskName = Annotated[str, typer.Option(help="{text,image}-classification, language-modelling, sentence-embedding.")]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Allow code of the model's own to run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No plan and no progress.")]
Column = typer.Option(help="The column of the texts; twice for pairs.")
Targets = typer.Option(help="A line of the budget: latency<=5ms, size<=20MB, drop<=1.0. Repeat it.")


@app.callback()
def options(context: typer.Context, show_traceback: Annotated[bool, typer.Option("--traceback")] = False) -> None:
    """Finds the architecture that a trained model should have had."""
    context.obj = show_traceback


@app.command()
def optimize(
    context: typer.Context,
    model: Model,
    task: TaskName,
    data: Annotated[str, typer.Option(help="CSV, TSV, JSONL, parquet, text, folder of pictures, or datasets name.")],
    validation: Annotated[str | None, typer.Option(help="Default: split off --data.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Read once, at the end. Default: split off --data.")] = None,
    text: Annotated[list[str] | None, Column] = None,
    label: Annotated[str | None, typer.Option(help="The column of the labels.")] = None,
    metric: Annotated[str | None, typer.Option(help="Default: the task's own.")] = None,
    target: Annotated[list[str] | None, Targets] = None,
    runtime: Runtime = "all",
    threads: Threads = 1,
    batch: Batch = 1,
    length: Length = 128,
    minutes: Minutes = 20,
    seed: Seed = 0,
    out: Out = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search the best architecture inside a trained model, within a budget."""
    run = out or _new_run()
    with _edge(context, run), _progress(quiet or as_json) as progress:
        from archsmith.jobs.optimize import optimize as job

        result = job(
            model,
            task,
            data=data,
            validation=validation,
            holdout=holdout,
            text=tuple(text) if text else None,
            label=label,
            metric=metric,
            targets=tuple(target or ()),
            runtime=runtime,
            threads=threads,
            batch=batch,
            length=length,
            minutes=minutes,
            seed=seed,
            out=run,
            allow_code=allow_code,
            progress=progress,
        )
    _print_result(result, run, as_json)


@app.command()
def trim(
    context: typer.Context,
    model: Model,
    data: Annotated[list[str], typer.Option(help="Tables or plain texts whose tokens stay. Repeat it.")],
    out: Annotated[Path, typer.Option(help="Folder for the smaller model, new or empty.")],
    text: Annotated[list[str] | None, Column] = None,
    task: Annotated[str | None, typer.Option(help="Chooses the head, as in optimize.")] = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Keep the tokens that data use, in a model and its tokenizer."""
    with _edge(context):
        from archsmith.jobs.trim import trim as job
        from archsmith.report.terminal import trim_view

        found = job(model, data, out, text=text, task=task, allow_code=allow_code)
    _print(found, as_json, trim_view)


@app.command()
def inspect(context: typer.Context, model: Model, as_json: AsJson = False, allow_code: AllowCode = False) -> None:
    """Show what can change in a model, what cannot, and why."""
    with _edge(context):
        from archsmith.jobs.inspect import inspect as job
        from archsmith.report.terminal import inspect_view

        found = job(model, allow_code=allow_code)
    _print(found, as_json, inspect_view)


@app.command()
def measure(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model as for optimize, or an .onnx file.")],
    runtime: Runtime = "all",
    threads: Threads = 1,
    batch: Batch = 1,
    length: Length = 128,
    as_json: AsJson = False,
    allow_code: AllowCode = False,
) -> None:
    """Measure what a model costs, and its latency on each runtime."""
    with _edge(context):
        from archsmith.jobs.measure import measure as job
        from archsmith.report.terminal import measure_view

        found = job(model, runtime=runtime, threads=threads, batch=batch, length=length, allow_code=allow_code)
    _print(found, as_json, measure_view)


@app.command()
def bench(
    context: typer.Context,
    benchmark: Annotated[list[str], typer.Option(help="nb201-cifar10=FILE, or NAME:COLUMN,...=FILE.csv. Repeat it.")],
    strategy: Annotated[list[str], typer.Option(help="NAME, NAME:OPTION=VALUE,... or optuna:SAMPLER. Repeat it.")],
    out: Out = None,
    budget: Annotated[int, typer.Option(min=1, help="Whole evaluations of each search.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="Searches of each strategy on each benchmark.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Searches at once.")] = 1,
    objective: Annotated[list[str] | None, typer.Option(help="Columns, for the tables' own. Repeat it.")] = None,
    quiet: Quiet = False,
) -> None:
    """Compare search strategies on tables of architectures that were all measured once."""
    with _edge(context):
        from archsmith.jobs.bench import bench as job

        folder = out or _new_run()
        job(
            benchmark,
            strategy,
            out=folder,
            budget=budget,
            seeds=seeds,
            workers=workers,
            objectives=objective or (),
            on_done=None if quiet else typer.echo,
        )
    typer.echo((folder / "table.md").read_text(encoding="utf-8"))
    typer.echo(f"{folder / 'bench.html'}")


@app.command()
def search(
    context: typer.Context,
    benchmark: Annotated[str | None, typer.Option(help="A table in place of training, as bench takes it.")] = None,
    space: Annotated[str | None, typer.Option(help="A space as JSON; with --task the name of one, too.")] = None,
    task: Annotated[str | None, typer.Option(help="Networks from nothing: see docs/scratch.md for the tasks.")] = None,
    data: Annotated[str | None, typer.Option(help="Of the task, as in optimize.")] = None,
    validation: Annotated[str | None, typer.Option(help="Default: split off --data.")] = None,
    holdout: Annotated[str | None, typer.Option(help="Read once, at the end. Default: split off --data.")] = None,
    text: Annotated[list[str] | None, Column] = None,
    segmented: Annotated[bool, typer.Option("--segmented", help="Chinese texts have spaces between words.")] = False,
    label: Annotated[str | None, typer.Option(help="The column of the labels.")] = None,
    metric: Annotated[str | None, typer.Option(help="Default: the task's own.")] = None,
    history: Annotated[
        int | None, typer.Option(help="Steps, or tokens, that a network reads. Default: 96; 128.")
    ] = None,
    horizon: Annotated[int | None, typer.Option(help="Steps of a series that are foretold. Default: 24.")] = None,
    target: Annotated[list[str] | None, Targets] = None,
    runtime: Runtime = "all",
    evaluator: Annotated[
        str | None,
        typer.Option(help="With --task: trained, curve or zero-cost. Else package.module:name, with --allow-code."),
    ] = None,
    objective: Annotated[list[str] | None, typer.Option(help="A value to minimise. Repeat it.")] = None,
    strategy: Annotated[str, typer.Option(help="NAME, NAME:OPTION=VALUE,... or optuna:SAMPLER.")] = "portfolio",
    past: Annotated[list[str] | None, typer.Option(help="A run of the same space to learn from. Repeat it.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of the whole study.")] = 100,
    minutes: Annotated[float | None, typer.Option(help="Wall-clock after which none begins.")] = None,
    patience: Annotated[int | None, typer.Option(min=1, help="Stop after so many without anything new.")] = None,
    trial_minutes: Annotated[float | None, typer.Option(help="Wall-clock of one trial.")] = None,
    trial_gigabytes: Annotated[float | None, typer.Option(help="Memory of one trial, GiB.")] = None,
    executor: Annotated[str, typer.Option(help="local or ray.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Trials at once. Default: 1; on Ray, its CPUs.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="That train the winner together, with --task.")] = 1,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster.")] = None,
    store: Annotated[str | None, typer.Option(help="A file or a database URL. Default: RUN/study.db.")] = None,
    track: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb or mlflow. Repeat it.")] = None,
    seed: Seed = 0,
    out: Out = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search a space for its best architectures."""
    run = out or _new_run()
    with _edge(context, run):
        from archsmith.jobs.ground import Scratch
        from archsmith.jobs.search import Asked
        from archsmith.jobs.search import search as job

        scratch = None
        of_a_task = (task, data, validation, holdout, text, label, metric, target, runtime != "all")
        if any(of_a_task):
            scratch = Scratch(
                task=task or "",
                data=data or "",
                space=space or "",
                validation=validation,
                holdout=holdout,
                text=tuple(text) if text else None,
                label=label,
                metric=metric,
                history=history,
                horizon=horizon,
                targets=tuple(target or ()),
                runtime=runtime,
                seed=seed,
                processes=processes,
                segmented=segmented,
            )

        asked = Asked(
            strategy=strategy,
            trials=trials,
            benchmark=benchmark,
            space=None if scratch else space,
            evaluator=evaluator,
            scratch=scratch,
            objectives=tuple(objective or ()),
            past=tuple(past or ()),
            executor=executor,
            workers=workers,
            address=address,
            store=store,
            minutes=minutes,
            patience=patience,
            trial_minutes=trial_minutes,
            trial_gigabytes=trial_gigabytes,
            track=tuple(track or ()),
            seed=seed,
            allow_code=allow_code,
        )
        with _progress(quiet or as_json) as progress:
            job(run, asked, progress)
    if scratch is None:
        _print_front(run, as_json)
    else:
        from archsmith.report.result import read_result

        _print_result(read_result(run), run, as_json)


@app.command()
def dashboard(context: typer.Context, run: Run, port: Annotated[int, typer.Option(min=1, max=65535)] = 8080) -> None:
    """Open optuna-dashboard on a run's study."""
    with _edge(context):
        from archsmith.jobs.dashboard import dashboard as job

        typer.echo(f"http://localhost:{port}/")
        job(run, port)


@app.command()
def report(context: typer.Context, run: Run) -> None:
    """Write a run's report.html again, and say where it is."""
    with _edge(context, run):
        from archsmith.jobs.report import report as job

        typer.echo(job(run))


@app.command()
def resume(
    context: typer.Context, run: Run, as_json: AsJson = False, quiet: Quiet = False, allow_code: AllowCode = False
) -> None:
    """Go on with a run that was stopped, from its last finished stage; join a search that others work on."""
    with _edge(context, run), _progress(quiet or as_json) as progress:
        from archsmith.jobs.resume import resume as job

        result = job(run, progress=progress, allow_code=allow_code)
    if result is None:
        _print_front(run, as_json)
    else:
        _print_result(result, run, as_json)


@app.command()
def demo(
    context: typer.Context,
    out: Out = None,
    minutes: Minutes = 7,
    threads: Threads = 1,
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Optimise a real sentence-embedding model on the docstrings of the installed packages."""
    run = out or _new_run()
    with _edge(context, run), _progress(quiet or as_json) as progress:
        from archsmith.jobs.demo import demo as job

        result = job(run, minutes=minutes, threads=threads, seed=seed, progress=progress)
    _print_result(result, run, as_json)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 3 a target was not reached, 130 stopped, 1 a bug."""
    try:
        sys.exit(app(args=arguments, standalone_mode=False))
    except Exception as error:  # the parser's own mistakes (unknown option, missing value) come out here
        if not hasattr(error, "format_message"):
            raise
        message = " ".join(error.format_message().split())
        if message:  # empty: the help has been printed because nothing was asked
            typer.echo(f"error: {message} See `archsmith --help`.", err=True)
        sys.exit(2)


@contextmanager
def _edge(context: typer.Context, run: Path | None = None) -> Iterator[None]:
    """The one place where errors become a line and an exit code."""
    try:
        yield
    except ArchsmithError as error:
        if isinstance(error, BudgetNotReachable) and run is not None and (run / "result.json").exists():
            from archsmith.report.result import read_result

            _print_result(read_result(run), run, as_json=context.params.get("as_json", False))
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        way_on = f"; `archsmith resume {run}` goes on" if run is not None and run.exists() else ""
        typer.echo(f"stopped{way_on}", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader has gone (`| head`): say nothing, and keep the interpreter from flushing into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        typer.echo(f"this is a bug in archsmith: {what}; {_keep_traceback(context, run)}", err=True)
        raise typer.Exit(1) from None


def _keep_traceback(context: typer.Context, run: Path | None) -> str:
    trace = traceback.format_exc()
    if context.find_root().obj:
        return f"here it is\n{trace}"
    try:
        if run is None or not run.is_dir():
            raise FileNotFoundError
        with (run / LOG).open("a", encoding="utf-8") as log:
            log.write(trace)
    except OSError:
        return "`archsmith --traceback ...` shows where"
    return f"the traceback is in {run / LOG}"


def _progress(quiet: bool) -> Progress:
    from rich.console import Console

    from archsmith.report.terminal import Progress

    return Progress(None if quiet else Console(stderr=True))


def _print_result(result: Result, run: Path, as_json: bool) -> None:
    from archsmith.report.plain import to_plain
    from archsmith.report.terminal import result_view

    _print(to_plain(result), as_json, lambda _: result_view(result))
    if not as_json:
        typer.echo(f"report: {run / 'report.html'}")


def _print_front(run: Path, as_json: bool) -> None:
    from archsmith.report.terminal import front_view

    _print(json.loads((run / "front.json").read_text(encoding="utf-8")), as_json, front_view)
    if not as_json:
        typer.echo(f"{run}")


def _print(found: Any, as_json: bool, view: Any) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(view(found))


def _new_run() -> Path:
    return Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
