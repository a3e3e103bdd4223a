"""The scripts in `benchmarks`: what they compare, and what they say where there is nothing to compare with."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from archsmith.evaluate.nasbench201 import DATA
from archsmith.evaluate.replay import Replay
from archsmith.jobs.asked import Asked
from archsmith.jobs.ground import Scratch


class Said:
    """A record that keeps what is said."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Any, bool | None]] = {}

    def say(self, name: str, value: Any, unit: str = "", must: bool | None = None) -> None:
        self.rows[name] = value, must


TABLE = SimpleNamespace(columns={"val_error": np.array([1.0, 5.0])})


@pytest.mark.parametrize(("lost", "held"), [(2.0, True), (9.0, False)])
def test_ours_is_compared_with_random_and_its_absence_is_said(
    monkeypatch: pytest.MonkeyPatch, lost: float, held: bool
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import nb201

    def searches(error: float) -> list[Replay]:
        told = np.full((1, 1), error)
        return [Replay(told, told + 0.1 * seed, np.ones(1), np.ones(1, dtype=bool), 0.0) for seed in range(5)]

    said, found = Said(), {}
    nb201.report(said, TABLE, nb201.OURS, DATA[0], searches(lost), found)
    row = f"{nb201.OURS}, {DATA[0]}, 200: standard errors above random"
    assert "not compared" in said.rows[row][0] and said.rows[row][1] is None
    nb201.report(said, TABLE, "random", DATA[0], searches(5.0), found)
    nb201.report(said, TABLE, nb201.OURS, DATA[0], searches(lost), found)
    assert said.rows[row][1] is held


@pytest.mark.parametrize(("settled", "called"), [(False, "search"), (True, "follow")])
def test_a_killed_search_is_gone_on_with_only_where_its_winner_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settled: bool, called: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import contest

    out, done = tmp_path / "run", []
    (out / "stages").mkdir(parents=True)
    (out / "stages" / ("length.json" if settled else "pace.json")).touch()
    monkeypatch.setattr(contest, "search", lambda folder, asked: done.append(("search", folder.exists())))
    monkeypatch.setattr(contest, "follow", lambda folder, asked: done.append(("follow", folder.exists())))
    contest.Contest(Scratch("image-classification", "", ""), Asked(), lambda result: {}).searched(out)
    assert done == [(called, settled)]


def test_what_a_search_took_counts_a_killed_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import contest

    (tmp_path / "stages").mkdir()
    for name, text, at in (
        ("plan.json", "{}", 100.0),
        ("stages/chosen.json", "{}", 160.0),
        ("stages/winner.json", '{"result": {"seconds": 30.0}, "seconds": 5.0}', 900.0),
    ):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (at, at))
    assert contest.spent(tmp_path) == 90.0
