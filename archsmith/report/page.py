"""A run's files -> `report.html`: one page that needs no network and nothing beside it."""

from __future__ import annotations

from pathlib import Path

from archsmith.report.plain import write_text
from archsmith.report.result import Result
from archsmith.report.story import Story


def write_page(result: Result, story: Story, run: Path) -> Path:
    """Write `run/report.html`, whole or not at all."""
    return write_text(run / "report.html", f"<title>{story.title}</title>{result.task}")
