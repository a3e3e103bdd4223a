"""Minutes become counts: never negative, never more than there is, and no training where there is no time."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.jobs.plan import (
    BATCH,
    CHECKING,
    CHECKS,
    HELD_OUT,
    JUDGED,
    JUDGED_AGAIN,
    LEAST_BATCH,
    LEAST_TRAINING,
    MADE,
    MOST_TRIALS,
    TRYING,
    Pace,
    Plan,
    make_plan,
)
from archsmith.tasks.answer import calling


class Slow(nn.Module):
    """A network that takes so many seconds a row."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds * len(x))
        return x


class Rows:
    """A task of so many equal rows, and so many that are held out from them."""

    real_share = 0.2

    def __init__(self, rows: int, others: int, self_taught: bool) -> None:
        self.rows, self.others, self.self_taught = rows, others, self_taught

    def size(self, part: str) -> int:
        return self.rows if part == "train" else self.others

    def batches(self, part: str, size: int, rng: Any) -> Any:
        return (list(range(begin, min(self.rows, begin + size))) for begin in range(0, self.rows, size))

    def inputs(self, part: str, rows: list[int]) -> dict[str, Tensor]:
        return {"x": torch.zeros(len(rows), 1)}

    def wrap(self, model: nn.Module) -> nn.Module:
        return model


def plan(
    minutes: float,
    rows: int,
    seconds: float = 2e-5,
    spent: float = 0.0,
    ship: float = 0.0,
    others: int = 10,
    self_taught: bool = False,
) -> Plan:
    case: Any = SimpleNamespace(
        request=SimpleNamespace(minutes=minutes),
        task=Rows(rows, others, self_taught),
        rng=lambda *place: np.random.default_rng(place),
    )
    return make_plan(case, calling(Slow(seconds)), spent, ship)


@pytest.mark.parametrize("minutes", [0.01, 0.3, 0.5, 3.0, 20.0, 600.0])
@pytest.mark.parametrize("rows", [1, 50, 300])
@pytest.mark.parametrize(("spent", "ship"), [(0.0, 0.0), (15.0, 5.0), (1e5, 10.0)])
def test_counts_are_never_negative_and_fit_the_minutes(minutes: float, rows: int, spent: float, ship: float) -> None:
    found = plan(minutes, rows, spent=spent, ship=ship)
    assert min(found.to_json().values()) >= 0
    left = minutes * 60 - spent - 1.5 * ship
    assert found.trains == (left >= LEAST_TRAINING + 1)
    assert found.label_rows <= rows and found.extra_rows <= MADE * rows
    assert found.trials * found.trial_seconds + found.final_seconds <= max(left, 0) + 1e-6
    if found.trains:
        assert 2 <= found.trials <= MOST_TRIALS and found.label_rows == rows and found.checks > 0
    assert Plan(**found.to_json()) == found


@pytest.mark.parametrize(("minutes", "spent", "ship"), [(0.2, 0, 0), (1.0, 41, 0), (1.0, 0, 27), (5.0, 1000, 0)])
def test_small_minutes_give_no_training(minutes: float, spent: float, ship: float) -> None:
    assert plan(minutes, 100, spent=spent, ship=ship) == Plan(0, 0, 0, 0.0, 0.0, 0)


def test_labels_take_at_most_a_fifth_or_so_of_the_time() -> None:
    """1 ms a row: a fifth of 30 s are 6,000 rows at most, a fifth of them real where not all real ones can be asked."""
    few = plan(0.5, 64 * 4, seconds=1e-3)
    assert few.label_rows == 256 and few.extra_rows == MADE * 256
    many = plan(0.5, 1_000_000, seconds=1e-3)
    assert 0 < many.label_rows + many.extra_rows <= 6_000
    assert many.label_rows / (many.label_rows + many.extra_rows) == pytest.approx(0.2, abs=0.01)
    assert many.trials * many.trial_seconds + many.final_seconds >= 0.7 * 30


PACES = [(Pace(0.1, 0.0), 10.0, 5, 100), (Pace(0.0, 1e-3), 10.0, 1000, 10), (Pace(5.0, 0.0), 1.0, 5, 1)]


@pytest.mark.parametrize(("pace", "seconds", "macs", "steps"), PACES)
def test_a_pace_gives_at_least_one_step(pace: Pace, seconds: float, macs: int, steps: int) -> None:
    assert pace.steps(seconds, macs) == steps


def test_a_network_too_slow_to_label_a_batch_is_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to fewer rows than a batch holds teach nothing, and to none cannot be learnt from at all."""
    monkeypatch.setattr("archsmith.jobs.plan._label_seconds", lambda case, teacher: 10.0)
    assert plan(0.5, 100) == Plan(0, 0, 0, 0.0, 0.0, 0)
    few = plan(5.0, 1, others=0)
    assert few == Plan(1, MADE, 2, TRYING * 250 / 2, (1 - TRYING) * 250, CHECKS, LEAST_BATCH)


@pytest.mark.parametrize(("others", "checks"), [(100, CHECKS), (1_000, 4), (4_000, 0)])
def test_judging_is_within_the_minutes(others: int, checks: int) -> None:
    """1 ms a row: a check of 1,000 rows takes a second. All that is planned fits the minutes."""
    found = plan(2.0, 64, seconds=1e-3, others=others)
    check = others * 1e-3
    checking = 2 * found.checks * check
    judging = (found.trials * JUDGED + 2 * JUDGED_AGAIN + HELD_OUT) * check
    trained = found.trials * found.trial_seconds + found.final_seconds
    assert 0.9 * 120 < trained + checking + judging + 320e-3 <= 120 * 1.02
    assert checking <= CHECKING * (found.final_seconds + checking) * 1.02
    assert found.checks == checks


def test_a_validation_part_too_large_to_judge_a_training_on_leaves_no_training() -> None:
    assert plan(2.0, 64, seconds=1e-3, others=20_000) == Plan(0, 0, 0, 0.0, 0.0, 0)


@pytest.mark.parametrize(("seconds", "batch"), [(1e-4, BATCH), (0.05, 32), (0.3, LEAST_BATCH), (9.0, LEAST_BATCH)])
def test_a_step_of_a_slow_network_has_fewer_rows(monkeypatch: pytest.MonkeyPatch, seconds: float, batch: int) -> None:
    monkeypatch.setattr("archsmith.jobs.plan._label_seconds", lambda case, teacher: seconds)
    assert plan(600.0, 1000, others=0).batch == batch


def test_what_teaches_itself_asks_nothing_of_the_original() -> None:
    """1 ms a row: 20,000 answers would take a third of the minute."""
    found = plan(1.0, 20_000, seconds=1e-3, self_taught=True)
    assert (found.label_rows, found.extra_rows) == (20_000, MADE * 20_000)
    assert found.trials * found.trial_seconds + found.final_seconds > 0.9 * 60
    assert plan(1.0, 20_000, seconds=1e-3).final_seconds < 0.85 * found.final_seconds
