"""Commands that search, and compare searches."""

from __future__ import annotations

from typing import Annotated

import typer

from archsmith.cli.edge import (
    AllowCode,
    AsJson,
    Column,
    Out,
    Quiet,
    Run,
    Runtime,
    Seed,
    Targets,
    app,
    edge,
    new_run,
    print_front,
    print_result,
    progress_of,
)


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
    run = out or new_run()
    with edge(context, run):
        from archsmith.jobs.asked import Asked
        from archsmith.jobs.ground import Scratch
        from archsmith.jobs.search import search as job

        scratch = None
        of_a_task = (task, data, validation, holdout, text, label, metric, target, segmented)
        if any(of_a_task) or runtime != "all" or processes > 1 or (history, horizon) != (None, None):
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
        with progress_of(quiet or as_json) as progress:
            job(run, asked, progress)
    if scratch is None:
        print_front(run, as_json)
    else:
        from archsmith.report.result import read_result

        print_result(read_result(run), run, as_json)


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
    with edge(context):
        from archsmith.jobs.bench import bench as job

        folder = out or new_run()
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
def dashboard(context: typer.Context, run: Run, port: Annotated[int, typer.Option(min=1, max=65535)] = 8080) -> None:
    """Open optuna-dashboard on a run's study."""
    with edge(context):
        from archsmith.jobs.dashboard import dashboard as job

        typer.echo(f"http://localhost:{port}/")
        job(run, port)
