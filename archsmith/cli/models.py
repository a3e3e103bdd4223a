"""Commands on a model that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archsmith.cli.edge import (
    AllowCode,
    AsJson,
    Batch,
    Column,
    Length,
    Minutes,
    Model,
    Out,
    Quiet,
    Runtime,
    Seed,
    Targets,
    TaskName,
    Threads,
    app,
    edge,
    new_run,
    print_found,
    print_result,
    progress_of,
)


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
    run = out or new_run()
    with edge(context, run), progress_of(quiet or as_json) as progress:
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
    print_result(result, run, as_json)


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
    with edge(context):
        from archsmith.jobs.trim import trim as job
        from archsmith.report.terminal import trim_view

        found = job(model, data, out, text=text, task=task, allow_code=allow_code)
    print_found(found, as_json, trim_view)


@app.command()
def inspect(context: typer.Context, model: Model, as_json: AsJson = False, allow_code: AllowCode = False) -> None:
    """Show what can change in a model, what cannot, and why."""
    with edge(context):
        from archsmith.jobs.inspect import inspect as job
        from archsmith.report.terminal import inspect_view

        found = job(model, allow_code=allow_code)
    print_found(found, as_json, inspect_view)


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
    with edge(context):
        from archsmith.jobs.measure import measure as job
        from archsmith.report.terminal import measure_view

        found = job(model, runtime=runtime, threads=threads, batch=batch, length=length, allow_code=allow_code)
    print_found(found, as_json, measure_view)


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
    run = out or new_run()
    with edge(context, run), progress_of(quiet or as_json) as progress:
        from archsmith.jobs.demo import demo as job

        result = job(run, minutes=minutes, threads=threads, seed=seed, progress=progress)
    print_result(result, run, as_json)
