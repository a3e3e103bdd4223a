"""The scripts in `benchmarks`: what they compare, and what they say where there is nothing to compare with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import contest
import numpy as np
import pytest

from archsmith.evaluate.nasbench201 import DATA
from archsmith.evaluate.replay import Replay
from archsmith.jobs.asked import Asked, read_asked
from archsmith.jobs.baseline import Baseline
from archsmith.jobs.ground import Scratch
from archsmith.jobs.stages import digest


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
    out, done = tmp_path / "run", []
    (out / "stages").mkdir(parents=True)
    (out / "stages" / ("length.json" if settled else "pace.json")).touch()
    monkeypatch.setattr(contest, "search", lambda folder, asked: done.append(("search", folder.exists())))
    monkeypatch.setattr(contest, "follow", lambda folder, asked: done.append(("follow", folder.exists())))
    contest.Contest(Scratch("image-classification", "", ""), Asked(), lambda macs: {}).searched(out)
    assert done == [(called, settled)]


def test_what_a_search_took_counts_a_killed_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    for name, text, at in (
        ("plan.json", "{}", 100.0),
        ("stages/chosen.json", "{}", 160.0),
        ("stages/winner.json", '{"result": {"seconds": 30.0}, "seconds": 5.0}', 900.0),
    ):
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (at, at))
    assert contest.spent(tmp_path) == 90.0


def test_a_contest_goes_on_where_the_folder_of_its_search_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, elsewhere = tmp_path / "rows.csv", tmp_path / "elsewhere"
    data.write_text("a,b\n1,2\n")
    elsewhere.mkdir()
    (elsewhere / "rows.csv").write_text("a,b\n1,2\n")
    stages = {"inputs": {"/gone/rows.csv": digest(data)}, "pace": {"winner_steps": 9}, "chosen": {"width": 8}}

    def held(file: Path, trained: list[str], kill: str = "") -> contest.Rows:
        def train(run: Path, network: str, learning_rates: tuple[float], steps: int, out: Path) -> Baseline:
            assert json.loads((run / "stages" / "pace.json").read_text())["result"] == stages["pace"]
            assert str(file) in json.loads((run / "stages" / "inputs.json").read_text())["result"]
            asked_of = read_asked(run)
            assert asked_of is not None and asked_of.scratch is not None and asked_of.scratch.data == str(file)
            (rate,) = learning_rates
            trained.append(f"{network} {rate:g}")
            if trained[-1] == kill:
                raise KeyboardInterrupt
            assert steps == settled[network[0].upper()]
            reached = {1e-3: (70.0, 71.0), 2e-3: (69.0, 72.0), 4e-3: (73.0, 70.0)}[rate]
            return Baseline(*reached, 5, 100, 2.0, rate, 9, 60.0)

        def pace(run: Path, network: str, minutes: float) -> int:
            assert minutes == 30.0 and network[0].upper() not in settled  # where the search was, and once
            return settled.setdefault(network[0].upper(), 100 + len(settled))

        monkeypatch.setattr(contest, "baseline", train)
        monkeypatch.setattr(contest, "steps_in", pace)
        scratch = Scratch("image-classification", str(file), "chain")
        asked = Asked(scratch=scratch, minutes=90.0)
        one = contest.Contest(scratch, asked, lambda macs: {"A": f"a{macs:g}", "B": f"b{macs:g}"})
        monkeypatch.setattr(contest.Contest, "latencies", lambda *given: {"found": 1.0, "A": 2.0, "B": 3.0})
        if not (tmp_path / "seed0.json").exists():
            first = contest.Held(tmp_path / "seed0.json", one.told(), stages=stages)
            first.keep("found", quality=80.0, ms=9.0, seconds=50.0, macs=101.0)
        return one.held(file.parent / "work", tmp_path)

    trained, settled = list[str](), dict[str, int]()
    with pytest.raises(KeyboardInterrupt):
        held(data, trained, kill="a101 0.004")
    shutil.rmtree(data.parent / "work")
    rows = held(data, trained)
    first, then = [f"a101 {rate}" for rate in (0.001, 0.002, 0.004)], [f"b101 {rate}" for rate in (0.001, 0.002, 0.004)]
    assert trained == [*first, first[-1], *then]
    assert rows["A"] == {"quality": 69.0, "ms": 2.0, "seconds": 180.0, "macs": 100}  # the best on validation
    assert held(elsewhere / "rows.csv", trained) == rows and len(trained) == 7  # each is trained once
    kept = json.loads((tmp_path / "seed0.json").read_text())
    assert kept["asked"]["scratch"]["data"] == "rows.csv" and kept["machines"]["A"]["cores"]
    (elsewhere / "rows.csv").write_text("a,b\n1,3\n")
    shutil.rmtree(elsewhere / "work")
    with pytest.raises(SystemExit, match="has changed since the search of seed 0"):
        held(elsewhere / "rows.csv", trained)
