"""`archsmith report RUN`: write a run's page again from its two files."""

from __future__ import annotations

from pathlib import Path

from archsmith.report.page import write_page
from archsmith.report.result import read_result
from archsmith.report.story import read_story


def report(run: str | Path) -> Path:
    """Write `run/report.html` from `result.json` and `story.json`; raises `BadInput` where one is missing or broken."""
    return write_page(read_result(run), read_story(run), Path(run))
