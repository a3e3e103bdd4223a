"""`archsmith report RUN`: write a run's page again from its files."""

from __future__ import annotations

from pathlib import Path

from archsmith.report.page import write_page, write_search_page
from archsmith.report.picture import write_picture
from archsmith.report.result import read_result
from archsmith.report.story import read_searched, read_story


def report(run: str | Path) -> Path:
    """Write `run/report.html`, and `run/ladder.svg` for a README, from `result.json`, `story.json` and, after a search,
    `search.json`; give the page. A search that hands over no network has `search.html` alone.

    Raises `BadInput` where one of the first two is missing, one is broken, or the folder cannot be written.
    """
    folder = Path(run)
    if not (folder / "result.json").exists() and (searched := read_searched(run)):
        return write_search_page(searched, folder)
    result, story = read_result(run), read_story(run)
    write_picture(result, story.title, folder)
    return write_page(result, story, folder)
