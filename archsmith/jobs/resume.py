"""Go on with a run that was stopped: the same story; stages that have been recorded are read, not done."""

from __future__ import annotations

from pathlib import Path

from archsmith.jobs.case import Request, prepare
from archsmith.jobs.optimize import follow
from archsmith.report.result import Result
from archsmith.report.terminal import Progress
from archsmith.study import RunDirectory


def resume(run: str | Path, progress: Progress | None = None) -> Result:
    """Continue a run from its last finished stage. Raises `BadInput` where there is none, else as `optimize`."""
    with RunDirectory.open(run) as opened:
        request = Request.from_json(opened.plan)
        return follow(prepare(request), opened, progress or Progress())
