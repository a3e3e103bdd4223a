"""Series forecasts: that no window reaches into another part, what is scaled, what quality is, what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archsmith.errors import ArchsmithError, BadInput
from archsmith.tasks import SeriesForecasting, Task
from archsmith.tasks.series import read_series

START = datetime(2024, 1, 1)


def lines(steps: int, begin: datetime = START, step: timedelta = timedelta(hours=1)) -> list[str]:
    """A day's wave with a trend that counts the steps, so that a value tells when it was."""
    wave = np.sin(2 * np.pi * np.arange(steps) / 24)
    return [f"{begin + i * step},{wave[i]:.4f},{i}" for i in range(steps)]


def write(path: Path, rows: list[str], header: str = "date,wave,count") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def build(folder: Path, steps: int = 400, **options: Any) -> SeriesForecasting:
    options = {"history": 24, "horizon": 6, **options}
    return SeriesForecasting.from_files(write(folder / "data.csv", lines(steps)), **options)


def test_a_forecast_is_a_task(tmp_path: Path) -> None:
    task: Task = build(tmp_path)
    assert {name for name in vars(Task) if not name.startswith("_")} <= set(dir(task))
    inputs, targets = task.inputs("train", [0, 5]), task.targets("train", [0, 5])
    assert list(inputs) == list(task.dynamic()) == ["x"] and inputs["x"].shape == (2, 24, 2)
    assert targets is not None and targets.shape == (2, 6) and set(task.lengths("train").tolist()) == {1}
    assert task.example(3, 16)["x"].shape == (3, 24, 2)
    for read in (task.inputs, task.targets):
        with pytest.raises(ArchsmithError, match="sealed"):
            read("holdout", [0])
    served = [row for rows in task.batches("train", 7, np.random.default_rng(0)) for row in rows]
    assert sorted(served) == list(range(task.size("train")))


def test_no_step_is_in_two_parts_and_parts_follow_one_another(tmp_path: Path) -> None:
    task = build(tmp_path, label="count")
    task.open_holdout()
    seen = {}
    for part in ("train", "validation", "holdout"):
        rows = list(range(task.size(part)))
        read, foretold = task.inputs(part, rows)["x"][..., 1], task.targets(part, rows)
        both = (
            np.concatenate([read.numpy(), foretold.numpy()], axis=1) * task.scaling.deviation[1] + task.scaling.mean[1]
        )
        counts = np.rint(both).astype(int)
        assert (np.diff(counts, axis=1) == 1).all()  # what is foretold follows what is read
        seen[part] = (counts.min(), counts.max())
    assert seen == {"train": (0, 239), "validation": (240, 319), "holdout": (320, 399)}


def test_numbers_are_scaled_by_the_train_part_alone(tmp_path: Path) -> None:
    task = build(tmp_path)
    assert task.scaling.columns == ("wave", "count") and task.scaling.targets == ("count",)
    assert task.scaling.mean[1] == pytest.approx(np.arange(240).mean())
    assert task.scaling.deviation[1] == pytest.approx(np.arange(240).std())
    assert task.values["train"].std(axis=0) == pytest.approx([1, 1], abs=1e-3)


def test_quality_is_the_share_of_the_variance_that_is_foretold(tmp_path: Path) -> None:
    task = build(tmp_path, label="wave,count", horizon=3)
    rows = list(range(task.size("validation")))
    true = task.targets("validation", rows).numpy()
    noise = np.random.default_rng(0).normal(0, 0.1, true.shape).astype(np.float32)
    judged = task.judge(true + noise, "validation")
    by_target = true.reshape(-1, 3, 2)
    variance = ((by_target - by_target.mean(axis=(0, 1))) ** 2).sum()
    r2 = 1 - float((noise**2).sum() / variance)
    assert task.quality(judged) == pytest.approx(100 * r2, abs=1e-3) and 50 < 100 * r2 < 100
    assert task.errors(judged)["mse"] == pytest.approx(float((noise**2).mean()), rel=1e-4)
    assert task.errors(judged)["mae"] == pytest.approx(float(np.abs(noise).mean()), rel=1e-4)
    assert task.quality(task.judge(true, "validation")) == pytest.approx(100)
    worse, worst = (task.quality(task.judge(true + by, "validation")) for by in (10, 100))
    assert -100 < worst < worse < 0 and worse == pytest.approx(100 * (variance / (100 * true.size) - 1), abs=1e-3)
    assert task.quality(judged, np.arange(8)) != task.quality(judged)
    assert task.loss(torch.from_numpy(true + noise), torch.from_numpy(true)) == pytest.approx(float((noise**2).mean()))


def test_simple_forecasts_are_the_last_steps_again(tmp_path: Path) -> None:
    task = build(tmp_path, label="wave", horizon=30)
    assert task.season() == 24
    rows = list(range(task.size("validation")))
    read = task.inputs("validation", rows)["x"][..., 0].numpy()
    assert (task.naive("validation") == read[:, -1:]).all()
    again = task.naive("validation", 24)
    assert (again == np.concatenate([read, read[:, :6]], axis=1)).all()
    assert task.quality(task.judge(again, "validation")) > 99.9


def test_rows_that_are_made_are_mixtures_without_targets(tmp_path: Path) -> None:
    task = build(tmp_path)
    longer = task.extended(3, np.random.default_rng(0))
    n = task.size("train")
    assert longer.size("train") == n + 3 and task.size("train") == n
    targets = longer.targets("train", [0, n, n + 2])
    assert targets[0].isfinite().all() and targets[1:].isnan().all()
    x = longer.inputs("train", [n, 0])["x"]
    assert x.isfinite().all() and torch.equal(x[1], task.inputs("train", [0])["x"][0])
    assert longer.loss(torch.zeros(3, 6), targets) == pytest.approx(float(targets[0].square().mean()))
    assert longer.judge(np.zeros((n + 3, 6), np.float32), "train").shape == (n, 1, 4)


FORMS = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", "unix"]


@pytest.mark.parametrize("form", FORMS)
def test_times_are_told_from_numbers_whatever_their_form_and_name(tmp_path: Path, form: str) -> None:
    times = [START + timedelta(hours=i) for i in range(800)]
    said = [str(1_700_000_000 + 3600 * i) if form == "unix" else t.strftime(form) for i, t in enumerate(times)]
    header = "timestamp,a" if form == "unix" else "when,a"
    series = read_series(write(tmp_path / "t.csv", [f"{t},{i}" for i, t in enumerate(said)][::-1], header))
    assert series.columns == ("a",) and series.values[:, 0].tolist() == list(range(800))
    assert series.times is not None and (np.diff(series.times) == 3600).all()


def test_windows_across_a_gap_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = lines(400)
    path = write(tmp_path / "gap.csv", rows[:100] + rows[103:])
    task = SeriesForecasting.from_files(path, history=24, horizon=6, label="count")
    assert task.split.cut == {"train windows across a gap in time": 29}
    ahead = (
        task.targets("train", list(range(task.size("train"))))[:, 0]
        - task.inputs("train", list(range(task.size("train"))))["x"][:, -1, 1]
    )
    assert ahead.numpy() == pytest.approx(1 / task.scaling.deviation[1], abs=1e-4)
    days = [START + timedelta(days=i) for i in range(600)]
    working = [f"{day},{i % 7},{i}" for i, day in enumerate(days) if day.weekday() < 5]
    assert not read_series(write(tmp_path / "days.csv", working)).gaps.any()  # a calendar is no gap


def test_many_windows_are_judged_by_some_far_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(tmp_path)
    assert whole.block == 30 and whole.size("holdout") == 51
    monkeypatch.setattr("archsmith.tasks.series_forecasting.CAPS", {"validation": 20, "holdout": 20})
    some = build(tmp_path)
    assert some.size("holdout") == 17 and some.block == 10 and some.size("train") == whole.size("train")


def test_parts_may_be_files(tmp_path: Path) -> None:
    files = {
        name: write(tmp_path / f"{name}.csv", lines(200, START + timedelta(hours=at)))
        for name, at in (("data", 0), ("validation", 200), ("holdout", 400), ("inside", 100))
    }
    task = SeriesForecasting.from_files(files["data"], files["validation"], files["holdout"], history=24, horizon=6)
    assert task.split.split_off == () and task.split.rows == {"train": 171, "validation": 171, "holdout": 171}
    half = SeriesForecasting.from_files(files["data"], None, files["holdout"], history=24, horizon=6)
    assert half.split.split_off == ("validation",) and half.split.rows["train"] == 160 - 29
    with pytest.raises(BadInput, match="parts must not overlap in time; found validation begins before train ends"):
        SeriesForecasting.from_files(files["data"], files["inside"], files["holdout"], history=24, horizon=6)


def changed(at: int, row: str) -> list[str]:
    rows = lines(400)
    return [*rows[:at], row, *rows[at + 1 :]]


BAD: list[tuple[list[str], dict[str, Any], str]] = [
    (lines(60), {}, "train must have 8 windows of 24 steps and 6 to come; found 7 in 36 steps"),
    (changed(7, "2024-01-01 07:00:00,,7"), {}, "'wave' must hold a finite number in every row; found nothing at"),
    (changed(7, "2024-01-01 07:00:00,x,7"), {}, "found 'x' at .*data.csv:9. Fill in what is missing"),
    (changed(7, "2024-01-01 07:00:00,nan,7"), {}, "found 'nan' at .*data.csv:9"),
    (changed(7, "2024-01-01 06:00:00,0,7"), {}, "a time stands in one row .*06:00:00 again at .*data.csv:9"),
    (changed(7, "yesterday,0,7"), {}, "must hold times of one form; found 'yesterday' at .*data.csv:9"),
    ([f"{row.rpartition(',')[0]},5" for row in lines(400)], {}, "a target must change in each part; found count"),
    (
        [row if i < 320 else f"{row.rpartition(',')[0]},5" for i, row in enumerate(lines(400))],
        {},
        "found 'count', always the same in holdout",
    ),
    (lines(400), {"label": "load"}, "found 'load' at .*The columns of numbers are wave, count"),
    (lines(400), {"label": "date"}, "found 'date' at .*The columns of numbers are wave, count"),
    (lines(400), {"label": "count,count"}, "each target is named once"),
    (lines(400), {"horizon": 0}, "gives 1 or more; found 24 and 0"),
    (lines(400), {"fractions": {"holdout": 0.9}}, "leave something to train"),
]


@pytest.mark.parametrize(("rows", "options", "says"), BAD, ids=[says[:40] for _, _, says in BAD])
def test_what_cannot_be_foretold_is_refused(
    tmp_path: Path, rows: list[str], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        SeriesForecasting.from_files(write(tmp_path / "data.csv", rows), **{"history": 24, "horizon": 6, **options})


@pytest.mark.slow
def test_the_usual_split_of_etth1(shared: Any, tmp_path: Path) -> None:
    """20 months of hours are 12, 4 and 4 months, as everybody splits them; mean and deviation are those of others."""
    rows = (shared("data/ett") / "ETTh1.csv").read_text().splitlines()
    (tmp_path / "20months.csv").write_text("\n".join(rows[: 20 * 30 * 24 + 1]) + "\n")
    task = SeriesForecasting.from_files(tmp_path / "20months.csv")
    steps = {part: len(values) for part, values in task.values.items()}
    assert steps == {"train": 12 * 30 * 24, "validation": 4 * 30 * 24, "holdout": 4 * 30 * 24}
    assert task.scaling.targets == ("OT",) and len(task.scaling.columns) == 7 and task.season() == 24
    train = np.array([float(row.rpartition(",")[2]) for row in rows[1 : 8640 + 1]])
    assert task.scaling.mean[-1] == pytest.approx(train.mean()) and task.scaling.deviation[-1] == pytest.approx(
        train.std()
    )
