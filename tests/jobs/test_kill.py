"""kill -9 at random moments, then resume: no finished stage is done again, and the same result comes out."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from archsmith.report.result import read_result
from archsmith.study import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COMMAND = [sys.executable, "-m", "archsmith"]
TIMED = ("original", "latency", "plan", "pace")  # what a clock decides; all else follows from the seed


def request(model: Path, texts: dict[str, Path], out: Path) -> list[str]:
    files = [word for part in ("validation", "holdout") for word in (f"--{part}", str(texts[part]))]
    files += ["--data", str(texts["train"])]
    settings = ["--target", "drop<=3", "--runtime", "pytorch", "--minutes", "1", "--length", "32"]
    return ["optimize", str(model), "--task", "text-classification", *files, *settings, "--out", str(out), "--quiet"]


@pytest.fixture(scope="module")
def undisturbed(kind_bert: Path, texts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    found = subprocess.run([*COMMAND, *request(kind_bert, texts, out)], timeout=900)
    assert found.returncode in (0, 3)
    return out


def stamps(run: Path) -> dict[str, int]:
    """The finished stages and when each was recorded."""
    return {path.name: path.stat().st_mtime_ns for path in (run / "stages").glob("*.json")}


def kill_and_resume(run: Path, first: list[str], seconds: tuple[float, float], seed: int) -> int:
    """30 times: begin or go on, and be killed at a random moment; then to the end. How often it was killed."""
    chance = random.Random(seed)
    finished: dict[str, int] = {}
    kills = 0
    for _ in range(30):
        command = ["resume", str(run), "--quiet"] if (run / "plan.json").exists() else first
        process = subprocess.Popen([*COMMAND, *command])
        try:
            process.wait(timeout=chance.uniform(*seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        time.sleep(0.1)
        now = stamps(run)
        assert all(now.get(name) == stamp for name, stamp in finished.items()), "a finished stage was done again"
        finished = now
    if not (run / "result.json").exists():
        ended = subprocess.run([*COMMAND, "resume", str(run), "--quiet"], timeout=600)
        assert ended.returncode in (0, 3)
    return kills


def test_a_run_killed_from_its_first_second_comes_to_its_end(
    kind_bert: Path, texts: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    kills = kill_and_resume(run, request(kind_bert, texts, run), (6, 25), 0)
    assert kills > 3 and read_result(run).best.parameters > 0


def test_a_killed_run_ends_as_it_would_have(undisturbed: Path, tmp_path: Path) -> None:
    """From the same measured speeds, with all that follows from them done again under kills: equal to the bit."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    for path in run.iterdir():
        if path.name not in (*TIMED, "stages", "plan.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (run / "stages").iterdir():
        if path.stem not in TIMED:
            path.unlink()
    kills = kill_and_resume(run, [], (5, 14), 1)
    assert kills > 3

    def records(of: Path) -> dict[str, Any]:
        names = ("anatomy", "rank", "blocks", "front", "train")
        found = {name: json.loads((of / "stages" / f"{name}.json").read_text())["result"] for name in names}
        del found["train"]["cpu_seconds"]
        return found

    def trials(of: Path) -> list[dict[str, float]]:
        return [dict(trial.values) for trial in Store.read(of / "study.db").history()]

    assert records(run) == records(undisturbed)
    assert trials(run) == trials(undisturbed)
    mine, theirs = (load_file(each / "model" / "model.safetensors") for each in (run, undisturbed))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
