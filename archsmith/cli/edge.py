"""What commands share: the application, their options, the edge where errors become a line, and what they print."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
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


@contextmanager
def edge(context: typer.Context, run: Path | None = None) -> Iterator[None]:
    """The one place where errors become a line and an exit code."""
    try:
        yield
    except ArchsmithError as error:
        if isinstance(error, BudgetNotReachable) and run is not None and (run / "result.json").exists():
            from archsmith.report.result import read_result

            print_result(read_result(run), run, as_json=context.params.get("as_json", False))
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


def progress_of(quiet: bool) -> Progress:
    from rich.console import Console

    from archsmith.report.terminal import Progress

    return Progress(None if quiet else Console(stderr=True))


def print_result(result: Result, run: Path, as_json: bool) -> None:
    from archsmith.report.plain import to_plain
    from archsmith.report.terminal import result_view

    print_found(to_plain(result), as_json, lambda _: result_view(result))
    if not as_json:
        typer.echo(f"report: {run / 'report.html'}")


def print_front(run: Path, as_json: bool) -> None:
    from archsmith.report.terminal import front_view

    print_found(json.loads((run / "front.json").read_text(encoding="utf-8")), as_json, front_view)
    if not as_json:
        typer.echo(f"{run}")


def print_found(found: Any, as_json: bool, view: Any) -> None:
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(view(found))


def new_run() -> Path:
    return Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
