"""Go on with a run that was stopped: the same story; stages that have been recorded are read, not done."""

from __future__ import annotations

from pathlib import Path

from archsmith.errors import BadInput
from archsmith.jobs.case import Request, prepare
from archsmith.jobs.optimize import follow
from archsmith.report.result import Result
from archsmith.report.terminal import Progress
from archsmith.study import RunDirectory


def resume(run: str | Path, progress: Progress | None = None, *, allow_code: bool = False) -> Result:
    """Continue a run from its last finished stage. Raises `BadInput` where there is none, else as `optimize`.

    A run that was begun with `allow_code` needs it again: its folder may have come from somebody else.
    """
    with RunDirectory.open(run) as opened:
        request = Request.from_json(opened.plan)
        if request.allow_code and not allow_code:
            law = "a run that executes code of its model needs leave each time"
            raise BadInput(law, request.model, str(run), "give --allow-code if you trust it")
        return follow(prepare(request), opened, progress or Progress())
