"""How long networks from nothing are trained, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stripes import SPACE, asked, call
from torch import nn

from archsmith.build.plan import Part as Plan
from archsmith.errors import ArchsmithError
from archsmith.evaluate.from_scratch import TIMED_STEPS, FromScratch
from archsmith.jobs.ground import Scratch, grounded
from archsmith.jobs.pacing import (
    MORE_OFTEN,
    OFTEN,
    by_clock,
    by_passes,
    in_full,
    pace,
    recipe_of,
    recipes,
    settle_length,
    timed,
)
from archsmith.jobs.scratch import Making
from archsmith.study import RunDirectory
from archsmith.train.fit import Fitted, Schedule, fit


@pytest.mark.parametrize("evaluator", ["trained", "zero-cost:synflow"])
def test_minutes_are_shared_out_and_the_winner_goes_by_its_own_pace(
    stripes: Path, tmp_path: Path, evaluator: str
) -> None:
    code, said = call(*asked(stripes, tmp_path / "run", "--minutes", 0.1, "--evaluator", evaluator))
    assert code == 0, said
    pace, length, winner = (
        json.loads((tmp_path / "run" / "stages" / f"{name}.json").read_text())["result"]
        for name in ("pace", "length", "winner")
    )
    assert pace["winner_seconds"] == pytest.approx(6 * (0.25 if evaluator == "trained" else 0.9))
    assert 1.5 <= length["seconds"] <= 5.4
    assert length["steps"] == max(10, round(length["seconds"] / length["seconds_a_step"]))
    assert winner["steps"] == length["steps"] or winner["steps"] < 0.8 * length["steps"]  # annealed
    assert 0 < winner["seconds"] < 60


@pytest.mark.parametrize("more", [(), ("--minutes", 0.1, "--strategy", "spos")])
def test_where_bf16_is_quicker_all_training_is_in_it(
    stripes: Path, tmp_path: Path, more: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsmith.jobs.pacing.quicker", lambda seconds: (True, seconds(True)))
    monkeypatch.setattr("archsmith.jobs.pacing.LONG", 0.0)
    trained = []

    def noted(module: nn.Module, passes: object, loss: object, schedule: Schedule, **more: Any) -> Fitted:
        trained.append(schedule)
        return fit(module, passes, loss, schedule, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("archsmith.train.recipe.fit", noted)
    monkeypatch.setattr("archsmith.evaluate.weight_shared.fit", noted)
    code, said = call(*asked(stripes, tmp_path / "run", *more))
    assert code == 0, said
    winner = json.loads((tmp_path / "run" / "stages" / "winner.json").read_text())["result"]
    in_full = [schedule for schedule in trained if schedule.steps > max(TIMED_STEPS) + 3]  # longer than what is timed
    assert winner["steps"] in [schedule.steps for schedule in in_full]
    assert len(in_full) > 1 and all(schedule.autocast for schedule in in_full)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(("spent", "wanted"), [(0.0, 54.0), (30.0, 24.0), (50.0, 15.0)])
def test_a_winner_has_what_is_left_and_a_quarter_at_least(
    stripes: Path,
    tmp_path: Path,
    scratch: Scratch,
    monkeypatch: pytest.MonkeyPatch,
    spent: float,
    wanted: float,
    share: float,
) -> None:
    failing(monkeypatch, ())
    with RunDirectory.create(tmp_path / "run", {}) as run:
        pace(run, scratch, 3, 1.0, share=share)
        winner = grounded(scratch)[1].space.sample(np.random.default_rng(0))
        settle_length(run, scratch, winner, spent)
    length = json.loads((tmp_path / "run" / "stages" / "length.json").read_text())["result"]
    assert length["seconds"] == pytest.approx(wanted) and length["steps"] == round(wanted / 0.01)


@pytest.fixture
def scratch(stripes: Path) -> Scratch:
    return Scratch("image-classification", str(stripes / "data.npz"), str(stripes / "space.json"))


def test_a_square_is_blank_where_each_picture_is_seen_often(scratch: Scratch, tmp_path: Path) -> None:
    ground, _ = grounded(scratch)
    a_pass = ground.task.size("train") // recipe_of(ground).batch
    often, more = OFTEN * a_pass, MORE_OFTEN * a_pass
    told = [in_full(ground, steps, False) for steps in (often - 1, often, more - 1, more)]
    assert [(recipe.cutout, recipe.mixup) for recipe in told] == [(0, 0.0), (2, 0.0), (2, 0.0), (2, 0.3)]
    hours = "\n".join(str(hour % 24) for hour in range(400))
    (tmp_path / "load.csv").write_text(f"load\n{hours}\n")
    series = Scratch("series-forecasting", str(tmp_path / "load.csv"), "series", history=24, horizon=4)
    recipe = in_full(grounded(series)[0], 10**6, False)
    assert (recipe.cutout, recipe.mixup) == (0, 0.0)


def test_networks_have_as_many_passes_whatever_the_batch(stripes: Path, tmp_path: Path) -> None:
    told = {**SPACE, "choices": {**SPACE["choices"], "batch": [32]}, "recipe": {"batch": "$batch"}}
    (tmp_path / "space.json").write_text(json.dumps(told))
    scratch = Scratch("image-classification", str(stripes / "data.npz"), str(tmp_path / "space.json"))
    ground, blueprint = grounded(scratch)
    usual = recipe_of(ground)
    assert usual.batch == 16
    with RunDirectory.create(tmp_path / "run", {}) as run:
        pace(run, scratch, 3, None)
        settle_length(run, scratch, blueprint.space.sample(np.random.default_rng(0)), 0.0)
    trial, winner = recipes(tmp_path / "run", scratch)
    assert (winner.batch, winner.steps) == (32, 5 * trial.steps)  # ten times as many passes
    assert (trial.batch, Making(scratch, trial).trained(blueprint.space.sample(np.random.default_rng(0))).steps) == (
        16,
        trial.steps // 2,
    )


def failing(monkeypatch: pytest.MonkeyPatch, widths: tuple[int, ...]) -> list[int]:
    """Let networks of these widths fail in training; the widths of those that were timed come into the list."""
    seen: list[int] = []

    def seconds(self: FromScratch, plan: Plan, autocast: bool = False) -> float:
        width = next(self.ground.module(plan, 0).parameters()).shape[0]
        seen.append(width)
        if width in widths:
            raise RuntimeError(f"a width of {width} is not for me")
        return 0.01

    monkeypatch.setattr(FromScratch, "step_seconds", seconds)
    return seen


def test_what_cannot_be_trained_is_not_paced_by(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = failing(monkeypatch, (8,))
    plan = by_clock(scratch, 3, 60.0, None, 1.0)
    assert {4, 8} == set(seen) and plan["seconds_a_step"] == pytest.approx(0.01) and plan["trial_steps"] == 1300
    assert len(timed(scratch, 5)) == 5 - seen[:5].count(8)


def test_where_nothing_can_be_trained_that_is_said_or_left_to_trials(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, (4, 8))
    with pytest.raises(ArchsmithError, match="of 5 networks of the space none could be trained; the last: a width of"):
        by_clock(scratch, 3, 60.0, None, 1.0)
    plan = by_passes(scratch, False)
    assert plan["autocast"] is False and plan["winner_steps"] == 10 * plan["trial_steps"]
