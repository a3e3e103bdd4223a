"""The main job on a small real model: what it writes, that it resumes, that the user's folder stays as it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import archsmith
from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.jobs.choice import next_point
from archsmith.jobs.resume import resume
from archsmith.jobs.select import Point
from archsmith.report.result import Result, read_result
from archsmith.trial import Trial


def digest(folder: Path) -> dict[str, str]:
    """Every file of a folder by its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(model: Path, texts: dict[str, Path], out: Path, **options: object) -> Result:
    settings: dict[str, object] = {
        "data": texts["train"],
        "validation": texts["validation"],
        "holdout": texts["holdout"],
        "targets": ["drop<=3"],
        "runtime": "pytorch",
        "minutes": 1.0,
        "length": 32,
    }
    return archsmith.optimize(
        str(model),
        "text-classification",
        out=out,
        **{**settings, **options},  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def done(kind_bert: Path, texts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    before = digest(kind_bert)
    with contextlib.suppress(BudgetNotReachable):
        run(kind_bert, texts, out, runtime="openvino", minutes=2.0)
    assert digest(kind_bert) == before, "the user's folder changed"
    return out


def test_a_run_trains_and_ships_a_smaller_network(done: Path) -> None:
    result = read_result(done)
    assert result.best.parameters < result.original.parameters
    assert result.best.macs is not None and result.original.macs is not None
    assert result.best.macs < result.original.macs
    assert json.loads((done / "stages" / "plan.json").read_text())["result"]["final_seconds"] > 0
    assert (done / "stages" / "train.json").exists()
    assert next(rung.name for rung in result.ladder) == "original" and result.ladder[-1].name == "all together"
    assert result.holdout is not None and result.holdout.n == 200
    assert result.holdout.interval[0] <= result.holdout.difference <= result.holdout.interval[1]
    assert result.original.quality is not None and result.original.quality > 85, "the model of this test must be good"
    assert "<svg" in (done / "ladder.svg").read_text() and (done / "report.html").stat().st_size > 100_000


def test_with_less_than_two_minutes_of_long_training_one_network_gets_it(done: Path) -> None:
    stages = {path.stem for path in (done / "stages").iterdir()}
    assert "train" in stages and "train-again" not in stages


def test_with_more_a_second_network_is_trained_after_the_first(
    kind_bert: Path, texts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(front: Sequence[Point], trials: Sequence[Trial], ms: float, *rest: float) -> Point:
        """What follows by the rule; where nothing is worth it, whatever is not as fast as the first."""
        told = next_point(front, trials, ms, *rest)
        return told or next(point for point in reversed(front) if point.ms != ms)

    monkeypatch.setattr("archsmith.jobs.training.WORTH_TWO", 0.0)
    monkeypatch.setattr("archsmith.jobs.training.next_point", another)
    with contextlib.suppress(BudgetNotReachable):
        run(kind_bert, texts, tmp_path / "run", minutes=1.5)
    first, begun, second = (
        json.loads((tmp_path / "run" / "stages" / f"{stage}.json").read_text())["result"]
        for stage in ("train", "next", "train-again")
    )
    assert first["architecture"] != begun["architecture"] == second["architecture"]
    assert second["steps"] > 0


def test_what_ships_loads_with_transformers_alone(done: Path) -> None:
    code = (
        "import sys; sys.modules['archsmith'] = None\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        f"model = AutoModelForSequenceClassification.from_pretrained({str(done / 'model')!r}, trust_remote_code=True)\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(done / 'model')!r}, trust_remote_code=True)\n"
        "print(model(**tokenizer('word1 good word2 fine', return_tensors='pt')).logits.argmax().item())\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert found.stdout.strip() == "1", found.stderr[-2000:]


def test_resuming_a_finished_run_does_nothing_again(done: Path) -> None:
    records = {path.name: path.stat().st_mtime_ns for path in (done / "stages").iterdir()}
    first = (done / "result.json").read_text()
    with contextlib.suppress(BudgetNotReachable):
        resume(done)
    assert {path.name: path.stat().st_mtime_ns for path in (done / "stages").iterdir()} == records
    assert json.loads((done / "result.json").read_text())["best"] == json.loads(first)["best"]


def test_a_latency_out_of_reach_is_said_and_the_best_is_written(
    kind_bert: Path, texts: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BudgetNotReachable, match=r"latency<=1us.*floor") as caught:
        run(kind_bert, texts, tmp_path / "run", targets=["latency<=1us"], minutes=0.2)
    assert caught.value.exit_code == 3
    result = read_result(tmp_path / "run")
    assert not result.targets[0].met and (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_a_runtime_that_is_enough_stops_the_search(kind_bert: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    result = run(kind_bert, texts, tmp_path / "run", targets=["latency<=10s", "drop<=1"], minutes=0.2)
    assert result.best.parameters == result.original.parameters and all(target.met for target in result.targets)
    assert not (tmp_path / "run" / "stages" / "front.json").exists()


def test_a_module_with_a_task_object_is_optimised_and_left_alone(
    kind_bert: Path, texts: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from archsmith.tasks import TextClassification

    model = AutoModelForSequenceClassification.from_pretrained(kind_bert)
    task = TextClassification.from_files(
        texts["train"],
        texts["validation"],
        texts["holdout"],
        tokenizer=AutoTokenizer.from_pretrained(kind_bert),
        rng=np.random.default_rng(0),
    )
    model.train()
    model.classifier.bias.grad = torch.ones(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = archsmith.optimize(
        model, task, targets=["parameters<=60K"], runtime="pytorch", minutes=0.2, length=32, out=tmp_path / "run"
    )
    assert result.best.parameters <= 60_000
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training and torch.equal(model.classifier.bias.grad, torch.ones(2))
    with pytest.raises(BadInput, match="one run"):
        archsmith.optimize(model, task, runtime="pytorch", length=32, out=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_run_goes_on_with_what_it_began_with(kind_bert: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "train.tsv"
    data.write_bytes(texts["train"].read_bytes())
    settings = {"data": str(data), "targets": ["latency<=10s"], "minutes": 0.2}
    run(kind_bert, texts, tmp_path / "run", **settings)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert Path(plan["model"]).is_absolute() and plan["data"] == str(data)
    began = json.loads((tmp_path / "run" / "stages" / "inputs.json").read_text())["result"]
    assert {str(data), f"{kind_bert}/model.safetensors", f"{kind_bert}/tokenizer.json"} <= began.keys()
    data.write_text(data.read_text() + "1\tgood word1 word2\n")
    with pytest.raises(BadInput, match=f"other content at {data}"):
        resume(tmp_path / "run")
    (tmp_path / "run" / "plan.json").write_text(json.dumps({**plan, "allow_code": True}))
    with pytest.raises(BadInput, match="--allow-code"):
        resume(tmp_path / "run")
    (tmp_path / "run" / "plan.json").write_text(json.dumps({**plan, "colour": "red"}))
    with pytest.raises(BadInput, match="this version"):
        resume(tmp_path / "run")


def test_a_model_with_too_few_logits_writes_nothing(kind_bert: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    stars = tmp_path / "stars.tsv"
    rows = [line.split("\t")[1] for line in texts["train"].read_text().splitlines()[1:]]
    stars.write_text("label\tsentence\n" + "\n".join(f"{n % 5 + 1}\t{row}" for n, row in enumerate(rows)))
    with pytest.raises(BadInput, match="a logit for each of the 5 classes"):
        run(kind_bert, texts, tmp_path / "run", data=str(stars), validation=None, holdout=None)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ["memory<=3MB"]}, "--runtime"),
        ({"targets": ["speed<=3"]}, "metric"),
        ({"targets": ["latency<=3"]}, "latency is given in"),
        ({"targets": ["latency<=3ms", "latency<=4ms"]}, "once"),
        ({"minutes": 0.0}, "minutes"),
        ({"minutes": float("nan")}, "minutes"),
        ({"threads": 0}, "threads"),
        ({"batch": 0}, "batch"),
        ({"length": -1}, "length"),
        ({"length": 129}, "positions"),
        ({"seed": -1}, "seed"),
        ({"runtime": "tensorrt"}, "runtime"),
        ({"metric": "bleu"}, "metric"),
        ({"label": "nothing"}, "nothing"),
        ({"text": ("nothing",)}, "nothing"),
    ],
)
def test_bad_requests_write_nothing(
    kind_bert: Path, texts: dict[str, Path], tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        run(kind_bert, texts, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value"), [("data", "x" * 300 + ".tsv"), ("out", "x" * 300), ("model", "x" * 300), ("out", "{model}/a")]
)
def test_a_path_that_cannot_be_is_refused(
    kind_bert: Path, texts: dict[str, Path], tmp_path: Path, option: str, value: str
) -> None:
    named = {"model": str(kind_bert), "data": str(texts["train"]), "out": str(tmp_path / "run")}
    named[option] = value.format(model=kind_bert)
    before = sorted(kind_bert.rglob("*"))
    with pytest.raises(BadInput, match=r"File name too long|model's own folder"):
        archsmith.optimize(named["model"], "text-classification", data=named["data"], out=named["out"], length=32)
    assert not (tmp_path / "run").exists() and sorted(kind_bert.rglob("*")) == before


def test_a_folder_in_use_is_refused(kind_bert: Path, texts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="empty folder"):
        run(kind_bert, texts, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
