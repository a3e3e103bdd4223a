"""Go on with a run that was stopped: the same story; stages that have been recorded are read, not done."""

from __future__ import annotations

from pathlib import Path

from archsmith.errors import BadInput
from archsmith.jobs.asked import read_asked
from archsmith.jobs.case import Request, prepare
from archsmith.jobs.optimize import follow
from archsmith.jobs.search import follow as follow_search
from archsmith.report.result import Result, read_result
from archsmith.report.terminal import Progress
from archsmith.study import RunDirectory

LEAVE, TRUST = "a run that executes code of its user's needs leave each time", "give --allow-code if you trust it"


def resume(run: str | Path, progress: Progress | None = None, *, allow_code: bool = False) -> Result | None:
    """Continue a run from its last finished stage; a search is joined, and there is then no result but its front.

    Raises `BadInput` where there is none, else as `optimize` and `search`. A run that was begun with `allow_code` needs
    it again: its folder may have come from somebody else.
    """
    progress = progress or Progress()
    if (asked := read_asked(run)) is not None:
        own = asked.evaluator if asked.scratch is None else None  # with a task it is the name of one of ours
        if own and not allow_code:
            raise BadInput(LEAVE, own, str(run), TRUST)
        follow_search(Path(run), asked, progress)
        return read_result(run) if asked.scratch else None
    with RunDirectory.open(run) as opened:
        request = Request.from_json(opened.plan)
        if request.allow_code and not allow_code:
            raise BadInput(LEAVE, request.model, str(run), TRUST)
        return follow(prepare(request), opened, progress)
