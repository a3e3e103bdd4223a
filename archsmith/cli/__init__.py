"""The commands: parse, call a job, print. No logic; jobs are imported when they are called, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from archsmith.cli import models, runs, searches  # what they define are the commands
from archsmith.cli.edge import LOG, app, edge

__all__ = ["LOG", "app", "edge", "main", "models", "runs", "searches"]


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
