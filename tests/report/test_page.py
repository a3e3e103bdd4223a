"""The page's figures, as data."""

from __future__ import annotations

from dataclasses import replace

from archsmith.report.page import _figures
from archsmith.report.result import Result
from archsmith.report.story import Story


def test_qualities_of_two_parts_are_never_in_one_picture(result: Result, story: Story) -> None:
    """Rungs are judged on the holdout, what was tried on validation, where all may be points higher."""
    tried = replace(result.front[0], measured_on="validation")
    front = (tried, replace(tried, name="best", quality=95.0), replace(tried, name="original", quality=96.0))
    rungs = tuple(replace(rung, measured_on="holdout") for rung in result.ladder)
    apart = _figures(replace(result, front=front, ladder=rungs), story)
    assert apart["ladder"] == [] and apart["metric"] == "accuracy on validation"
    assert [[point["quality"] for point in apart[name]] for name in ("front", "best", "original")] == [
        [tried.quality],
        [95.0],
        [96.0],
    ]
    same = _figures(
        replace(result, front=front, ladder=tuple(replace(r, measured_on="validation") for r in rungs)), story
    )
    assert len(same["ladder"]) == len(rungs) and same["best"][0]["quality"] == result.best.quality
