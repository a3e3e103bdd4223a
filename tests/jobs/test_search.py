"""`archsmith search`: a study begun, stopped, joined, watched, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from archsmith.cli import app
from archsmith.errors import BadInput
from archsmith.jobs.asked import Asked, read_asked
from archsmith.jobs.dashboard import study_of
from archsmith.jobs.past import read_past
from archsmith.jobs.search import follow, search
from archsmith.space import Choice, Space
from archsmith.study import Store

EVALUATOR = '''
import os, time


def evaluate(proposal, rng):
    """The sum of two widths; 4 of the first cannot be built, and 7 never ends."""
    a, b = proposal.architecture["a"], proposal.architecture["b"]
    if a == 4:
        raise ValueError("4 cannot be built")
    time.sleep(60 if a == 7 else float(os.environ.get("SLEEP", 0)))
    return {"loss": float(a + b), "latency_ms": float(b)}


def longer(proposal, rng):
    """Much better with more epochs."""
    return {"loss": (1 + proposal.architecture["a"]) / proposal.fidelity.get("epochs", 9)}


def other(proposal, rng):
    """What is best for the first is worst here, and it is told."""
    import logging

    logging.getLogger("archsmith").warning("a batch is halved")
    return {"loss": -float(proposal.architecture["a"])}


def numbered(proposal, rng):
    """Fails for one reason, with numbers of its own each time, but twice for another."""
    if proposal.architecture["a"] == 0 and proposal.architecture["b"] < 2:
        raise ValueError("no room")
    raise ValueError(f"{rng.random()} ms are too many")


silent = None
'''


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{a},{b},{(a - 3) ** 2 + b}" for a in range(10) for b in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,error", *rows]) + "\n")
    return tmp_path / "t.csv"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a space and an evaluator, in which the command is run."""
    space = Space({"a": Choice(range(8)), "b": Choice(range(8))})
    (tmp_path / "space.json").write_text(json.dumps(space.to_json()))
    (tmp_path / "my_evaluator.py").write_text(EVALUATOR)
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    typo = {"choices": [{"name": "a", "values": [1, 2], "wen": {"name": "b", "values": [1]}}], "constraints": []}
    (tmp_path / "typo.json").write_text(json.dumps(typo))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [str(word) for word in words])
    return found.exit_code, found.output


def test_a_table_is_searched_and_the_run_goes_on(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, told = call("search", "--benchmark", f"t:error={table}", "--trials", "12", "--out", out)
    assert code == 0 and "12 complete" in told
    front = json.loads((out / "front.json").read_text())
    with_12 = Store.read(out / "study.db").history()
    assert len(with_12) == 12 and len(front["front"]) == 1
    assert front["front"][0]["values"]["error"] == min(trial.values["error"] for trial in with_12)
    assert {trial.proposal.note["strategy"] for trial in with_12} == {"bayesian"}
    code, told = call("resume", out, "--json")
    assert code == 0 and json.loads(told) == front and len(Store.read(out / "study.db").history()) == 12


def test_an_evaluator_of_the_user_within_limits(own: Path) -> None:
    arguments = ["search", "--space", "space.json", "--evaluator", "my_evaluator:evaluate", "--objective", "loss"]
    arguments += [
        "--objective",
        "latency_ms",
        "--strategy",
        "grid",
        "--trials",
        64,
        "--trial-minutes",
        0.01,
        "--out",
        "run",
    ]
    code, told = call(*arguments)
    assert code == 2 and "runs only when allowed" in told and not (own / "run").exists()
    code, told = call(*arguments, "--allow-code", "--track", "tensorboard", "--json")
    assert code == 0
    found = json.loads(told)
    assert found["trials"] == {"complete": 48, "failed": 16}
    assert [row["values"] for row in found["front"]] == [{"loss": 0.0, "latency_ms": 0.0}]
    assert any("4 cannot be built" in reason for reason in found["reasons"])
    assert any("may take 0.01 minutes" in reason for reason in found["reasons"])
    assert list((own / "run" / "tensorboard").glob("events*"))
    code, told = call("resume", "run")
    assert code == 2 and "--allow-code" in told
    assert call("resume", "run", "--allow-code")[0] == 0
    plan = json.loads((own / "run" / "plan.json").read_text())
    plan["search"]["allow_code"] = False  # as somebody may send it who wants their code to run
    (own / "run" / "plan.json").write_text(json.dumps(plan))
    code, told = call("resume", "run")
    assert code == 2 and "--allow-code" in told


def test_a_killed_search_is_joined_by_two(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEP", "0.5")
    command = [sys.executable, "-m", "archsmith", "search", "--space", "space.json"]
    command += ["--evaluator", "my_evaluator:evaluate"]
    command += ["--objective", "loss", "--strategy", "random", "--trials", "24", "--allow-code", "--out", "run"]
    command += ["--trial-minutes", "0.02", "-q"]
    begun = subprocess.Popen(command, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while time.monotonic() < until and begun.poll() is None:
        if (own / "run" / "study.db").exists():
            with suppress(BadInput), closing(Store.read("run/study.db")) as store:
                if len(store.history()) >= 3:
                    break
        time.sleep(0.1)
    assert begun.poll() is None, f"it ended by itself: {begun.stderr and begun.stderr.read()!r}"
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    monkeypatch.setenv("SLEEP", "0.1")
    joined = [
        subprocess.Popen(
            [sys.executable, "-m", "archsmith", "resume", "run", "--allow-code", "-q"], stdout=subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    assert [each.wait(240) for each in joined] == [0, 0]
    history = Store.read("run/study.db").history()
    assert len(history) == 24 and "running" not in {trial.status for trial in history}
    assert len({trial.proposal.architecture for trial in history}) == 24


def test_a_past_run_comes_first(table: Path, tmp_path: Path) -> None:
    past = Asked(benchmark=f"t:error={table}", strategy="random", trials=60)
    search(tmp_path / "past", past)
    warm = Asked(benchmark=f"t:error={table}", strategy="random", trials=6, past=(str(tmp_path / "past"),), seed=5)
    search(tmp_path / "warm", warm)
    search(tmp_path / "cold", Asked(benchmark=f"t:error={table}", strategy="random", trials=6, seed=5))
    first = [Store.read(tmp_path / name / "study.db").history()[0].values["error"] for name in ("warm", "cold")]
    assert first[0] <= 2.0 < first[1]


def test_what_a_past_run_taught_outlives_it(table: Path, tmp_path: Path) -> None:
    search(tmp_path / "past", Asked(benchmark=f"t:error={table}", strategy="random", trials=30))
    asked = Asked(benchmark=f"t:error={table}", strategy="bayesian", trials=8, past=(str(tmp_path / "past"),), seed=5)
    search(tmp_path / "whole", asked)
    search(tmp_path / "half", replace(asked, trials=4))
    shutil.rmtree(tmp_path / "past")
    plan = json.loads((tmp_path / "half" / "plan.json").read_text())
    plan["search"]["trials"] = 8
    (tmp_path / "half" / "plan.json").write_text(json.dumps(plan))
    assert call("resume", tmp_path / "half")[0] == 0
    whole, half = (
        [trial.proposal.architecture for trial in Store.read(tmp_path / name / "study.db").history()]
        for name in ("whole", "half")
    )
    assert half[:5] == whole[:5]  # a smaller budget makes no other proposals so soon
    assert len(half) == 8


def test_with_cheap_trials_what_a_past_run_puts_first_is_tried_in_full(own: Path) -> None:
    arguments = ["search", "--space", "space.json", "--evaluator", "my_evaluator:longer", "--objective", "loss"]
    arguments += ["--allow-code", "-q"]
    assert call(*arguments, "--strategy", "random", "--trials", 6, "--out", "past")[0] == 0
    code, told = call(*arguments, "--strategy", "asha:levels=[1,3,9]", "--trials", 30, "--past", "past", "--out", "run")
    assert code == 0, told
    (best,) = json.loads((own / "run" / "front.json").read_text())["front"]
    with closing(Store.read("run/study.db")) as store:
        full = [trial.values["loss"] for trial in store.history() if trial.proposal.fidelity == {"epochs": 9}]
    assert len(full) > 5 and best["values"]["loss"] == min(full) and best["fidelity"] == {"epochs": 9}


def test_a_study_by_a_relative_url_is_found_from_any_folder(own: Path, table: Path) -> None:
    assert (
        call("search", "--benchmark", "t:error=t.csv", "--trials", 4, "--store", "sqlite:///s.db", "--out", "run")[0]
        == 0
    )
    (own / "elsewhere").mkdir()
    os.chdir(own / "elsewhere")
    assert call("resume", own / "run")[0] == 0
    assert not list((own / "elsewhere").iterdir()) and len(Store.read(own / "s.db").history()) == 4


def test_a_refused_request_leaves_no_store(own: Path, table: Path) -> None:
    (own / "run").mkdir()
    (own / "run" / "mine.txt").write_text("kept")
    code, told = call("search", "--benchmark", "t:error=t.csv", "--store", "new.db", "--out", "run")
    assert code == 2 and "needs an empty folder" in told and not list(own.glob("new.db*"))


def test_a_table_is_searched_in_processes_from_any_folder(own: Path, table: Path) -> None:
    arguments = ["--benchmark", "t:error=t.csv", "--strategy", "random", "--trials", 4, "--workers", 2]
    code, told = call("search", *arguments, "--out", "run")
    assert code == 0 and "4 complete" in told
    (own / "elsewhere").mkdir()
    os.chdir(own / "elsewhere")
    assert call("resume", own / "run")[0] == 0
    assert not list((own / "elsewhere").iterdir())


BAD = {
    "no space": ([], "needs a benchmark, or a space"),
    "both": (["--benchmark", "t:error=t.csv", "--space", "space.json"], "needs a benchmark, or a space"),
    "no such strategy": (["--benchmark", "t:error=t.csv", "--strategy", "magic"], "There are: random"),
    "no such option": (
        ["--benchmark", "t:error=t.csv", "--strategy", "genetic:x=1"],
        "an option of genetic",
    ),
    "no such column": (["--benchmark", "t:error=t.csv", "--objective", "loss"], "is a column of the table"),
    "no such executor": (["--benchmark", "t:error=t.csv", "--executor", "cloud"], "local, ray"),
    "no such tracker": (["--benchmark", "t:error=t.csv", "--track", "paper"], "tensorboard, wandb, mlflow"),
    "no objective": (["--space", "space.json", "--evaluator", "my_evaluator:evaluate", "--allow-code"], "--objective"),
    "no evaluator": (
        ["--space", "space.json", "--evaluator", "nowhere:f", "--objective", "x", "--allow-code"],
        "package.module:name",
    ),
    "an evaluator that is none": (
        ["--space", "space.json", "--evaluator", "my_evaluator:silent", "--objective", "x", "--allow-code"],
        "found NoneType",
    ),
    "no space in the file": (
        ["--space", "t.csv", "--evaluator", "my_evaluator:evaluate", "--objective", "x", "--allow-code"],
        "holds JSON",
    ),
    "a target without a task": (["--benchmark", "t:error=t.csv", "--target", "latency<=5ms"], "Give --benchmark"),
    "an objective twice": (["--benchmark", "t:error=t.csv", "--objective", "error", "--objective", "error"], "differ"),
    "a study in memory": (["--benchmark", "t:error=t.csv", "--store", "sqlite://"], "outlives its process"),
    "a port that is none": (
        ["--benchmark", "t:error=t.csv", "--store", "postgresql://me:pw@h:abc/d"],
        "postgresql://...",
    ),
    "a password in the query": (
        ["--benchmark", "t:error=t.csv", "--store", "postgresql://localhost:1/d?password=hunter2"],
        "at postgresql://localhost:1/d.",
    ),
    "an evaluator that leaves": (
        ["--space", "space.json", "--evaluator", "leaving:f", "--objective", "x", "--allow-code"],
        "SystemExit",
    ),
    "a key that is none": (
        ["--space", "typo.json", "--evaluator", "my_evaluator:evaluate", "--objective", "x", "--allow-code"],
        "found 'wen' at",
    ),
    "no past": (["--benchmark", "t:error=t.csv", "--past", "nowhere"], "must exist to be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_searched_is_refused_on_one_line(own: Path, table: Path, name: str) -> None:
    arguments, reason = BAD[name]
    code, told = call("search", *arguments, "--out", "run")
    assert code == 2 and reason in told and told.count("\n") == 1 and not (own / "run").exists()


@pytest.mark.parametrize(
    "strategy",
    ["genetic:population=abc", "genetic:population=2.5", "genetic:selection=3", "bayesian:start=abc", "grid:budget=3",
     "bayesian:features=3", "evolution:sample=abc", "swarm:particles=2.5", "annealing:start=0",
     "genetic:objectives=[1]", "optuna:nosuch", "front:groups=[[1]]", "swarm:competition=NaN",
     "optuna:tpe,n_ei_candidates=0", "evolution:sample=1000000000000"],
)  # fmt: skip
def test_an_option_of_the_wrong_kind_is_refused_before_anything_is_there(own: Path, table: Path, strategy: str) -> None:
    code, told = call("search", "--benchmark", f"t:error={table}", "--strategy", strategy, "--out", "run")
    assert code == 2 and told.count("\n") == 1 and told.startswith("error: "), told
    assert not (own / "run").exists()
    code, told = call("bench", "--benchmark", f"t:error={table}", "--strategy", strategy, "--out", "run")
    assert code == 2 and told.count("\n") == 1 and not (own / "run").exists(), told


def damaged(path: Path, kind: str) -> Path:
    whole: dict[str, np.ndarray] = {"ops": np.zeros((15625, 6), int), "op_names": np.array(["none"] * 5)}
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "array":
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").rename(path)
    elif kind == "flipped":
        np.savez_compressed(path, **whole)
        content = bytearray(path.read_bytes())
        content[200:300] = bytes(byte ^ 255 for byte in content[200:300])
        path.write_bytes(bytes(content))
    else:
        np.savez(path, **whole)
    return path


@pytest.mark.parametrize("kind", ["empty", "array", "flipped", "other"])
def test_a_damaged_benchmark_is_said_on_one_line(own: Path, kind: str) -> None:
    file = damaged(own / "nb201.npz", kind)
    code, told = call("search", "--benchmark", f"nb201-cifar10={file}", "--out", "run")
    assert code == 2 and told.count("\n") == 1 and str(file) in told and not (own / "run").exists(), told


@pytest.mark.parametrize("content", ["a,a,error\n1,2,3\n", "a,error\n1,x\n2,y\n", "a,error\n1\n"])
def test_a_csv_that_is_no_table_is_said_on_one_line(own: Path, content: str) -> None:
    (own / "t.csv").write_text(content)
    code, told = call("search", "--benchmark", "t:error=t.csv", "--out", "run")
    assert code == 2 and told.count("\n") == 1 and "t.csv" in told and not (own / "run").exists(), told


def test_where_every_trial_fails_a_search_stops_and_says_why(own: Path) -> None:
    (own / "bad_evaluator.py").write_text("import sys\n\ndef leaves(proposal, rng):\n    sys.exit(0)\n")
    words = ("--space", "space.json", "--evaluator", "bad_evaluator:leaves", "--allow-code", "--objective", "loss")
    code, told = call("search", *words, "--strategy", "random", "--trials", "60", "--out", "run")
    assert code == 2 and "no trial ended well; the commonest reason: SystemExit" in told
    with closing(Store.read("run/study.db")) as store:
        assert len(store.history()) == 20


def test_an_objective_that_the_evaluator_has_not_is_said_at_once(own: Path) -> None:
    words = ("--space", "space.json", "--evaluator", "my_evaluator:evaluate", "--allow-code", "--objective", "los")
    code, told = call("search", *words, "--strategy", "grid", "--trials", "6", "--out", "run")
    assert code == 2 and "gives every objective; found no los" in told and "it gives: loss" in told.lower()


def test_a_store_of_another_search_is_refused(own: Path, table: Path) -> None:
    search("one", Asked(benchmark=f"t:error={table}", trials=2, store="shared.db"))
    code, told = call(
        "search", "--benchmark", f"t:error={table}", "--seed", "4", "--store", "shared.db", "--out", "two"
    )
    assert code == 2 and "the seed it began with" in told and not Path("two").exists()
    assert follow(Path("one"), read_asked("one") or Asked())  # the first is as it was


def test_a_store_of_another_evaluator_is_refused(own: Path) -> None:
    words = ("--space", "space.json", "--objective", "loss", "--trials", 3, "--strategy", "random", "--allow-code")
    store = ("--store", "shared.db")
    assert call("search", *words, *store, "--evaluator", "my_evaluator:evaluate", "--out", "one")[0] == 0
    code, told = call("search", *words, *store, "--evaluator", "my_evaluator:other", "--out", "two")
    assert code == 2 and "the evaluator it began with; found another evaluator at" in told and not Path("two").exists()
    assert call("search", *words, *store, "--evaluator", "my_evaluator:evaluate", "--out", "three")[0] == 0


def test_the_report_of_a_search_is_written_again(own: Path, table: Path) -> None:
    assert call("search", "--benchmark", f"t:error={table}", "--trials", 9, "--out", "run")[0] == 0
    written = (own / "run" / "search.html").read_text()
    (own / "run" / "search.html").unlink()
    code, told = call("report", "run")
    assert code == 0 and told.strip() == "run/search.html" and (own / "run" / "search.html").read_text() == written


def test_a_past_run_comes_first_where_all_of_the_space_is_tried(table: Path, tmp_path: Path) -> None:
    search(tmp_path / "past", Asked(benchmark=f"t:error={table}", strategy="random", trials=60))
    warm = Asked(benchmark=f"t:error={table}", trials=100, patience=6, past=(str(tmp_path / "past"),))
    (found,) = search(tmp_path / "warm", warm)
    assert found.values["error"] == 0.0


def test_what_a_trial_logs_is_in_the_run(own: Path) -> None:
    words = ("--space", "space.json", "--objective", "loss", "--trials", 2, "--allow-code")
    assert call("search", *words, "--evaluator", "my_evaluator:other", "--out", "run")[0] == 0
    assert (own / "run" / "archsmith.log").read_text().count("WARNING a batch is halved") == 2


def test_reasons_that_differ_in_numbers_are_one(own: Path) -> None:
    words = ("--space", "space.json", "--objective", "loss", "--trials", 9, "--strategy", "grid", "--allow-code")
    code, told = call("search", *words, "--evaluator", "my_evaluator:numbered", "--out", "run")
    assert code == 2 and "commonest reason: ValueError: 0." in told and "ms are too many" in told


def test_tasks_alone_read_the_options_of_a_task(own: Path, table: Path) -> None:
    for option in (("--horizon", 12), ("--history", 0), ("--processes", 2), ("--segmented",)):
        code, told = call("search", "--benchmark", f"t:error={table}", *option, "--out", "run")
        assert code == 2 and "Give --benchmark, --space with --evaluator, or --space with --task" in told, option


def test_values_of_several_fidelities_are_not_learnt_from_as_one(own: Path) -> None:
    words = ("--space", "space.json", "--objective", "loss", "--allow-code", "--trials", 30)
    strategy = ("--strategy", "asha:levels=[1,9]")
    assert call("search", *words, *strategy, "--evaluator", "my_evaluator:longer", "--out", "past")[0] == 0
    past = read_past(["past"], lambda run: f"{run}/study.db")
    assert len(past) == 2 and sum(len(trials) for trials, _ in past) == 30
    assert all(len({trial.proposal.fidelity["epochs"] for trial in trials}) == 1 for trials, _ in past)


def test_the_dashboard_opens_a_run(table: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    search(tmp_path / "run", Asked(benchmark=f"t:error={table}", strategy="random", trials=3))
    assert study_of(tmp_path / "run") == f"sqlite:///{tmp_path / 'run' / 'study.db'}"
    with pytest.raises(BadInput, match="once its search has begun"):
        study_of(tmp_path / "nowhere")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "study.db").touch()  # its tables are being made
    with pytest.raises(BadInput, match="once its search has begun"):
        study_of(tmp_path / "begun")
    command = [sys.executable, "-m", "archsmith", "dashboard", str(tmp_path / "run"), "--port", "18573"]
    serving = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until, told = time.monotonic() + 90, b""
        while not told and time.monotonic() < until:
            try:
                with urllib.request.urlopen("http://localhost:18573/api/studies", timeout=5) as answer:
                    told = answer.read()
            except OSError:
                time.sleep(0.3)
        assert b'"study_name":"search"' in told.replace(b": ", b":")
    finally:
        serving.terminate()
        serving.wait()
