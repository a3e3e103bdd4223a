"""Commands on a run that was begun."""

from __future__ import annotations

import typer

from archsmith.cli.edge import AllowCode, AsJson, Quiet, Run, app, edge, print_front, print_result, progress_of


@app.command()
def resume(
    context: typer.Context, run: Run, as_json: AsJson = False, quiet: Quiet = False, allow_code: AllowCode = False
) -> None:
    """Go on with a run that was stopped, from its last finished stage; join a search that others work on."""
    with edge(context, run), progress_of(quiet or as_json) as progress:
        from archsmith.jobs.resume import resume as job

        result = job(run, progress=progress, allow_code=allow_code)
    if result is None:
        print_front(run, as_json)
    else:
        print_result(result, run, as_json)


@app.command()
def report(context: typer.Context, run: Run) -> None:
    """Write a run's report.html again, and say where it is."""
    with edge(context, run):
        from archsmith.jobs.report import report as job

        typer.echo(job(run))
