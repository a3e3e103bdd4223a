"""`archsmith report RUN`: write a run's page again from its files."""

from __future__ import annotations

from pathlib import Path

from archsmith.report.page import write_page
from archsmith.report.picture import write_picture
from archsmith.report.result import read_result
from archsmith.report.story import read_story


def report(run: str | Path) -> Path:
    """Write `run/report.html`, and `run/ladder.svg` for a README, from `result.json`, `story.json` and, after a search,
    `search.json`; give the page.

    Raises `BadInput` where one of the first two is missing, one is broken, or the folder cannot be written.
    """
    result, story, folder = read_result(run), read_story(run), Path(run)
    write_picture(result, story.title, folder)
    return write_page(result, story, folder)
