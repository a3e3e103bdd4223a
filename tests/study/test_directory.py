"""A run's folder: finished stages are never lost or done again, unfinished ones leave nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kill_stages import STAGES, job

from archsmith.errors import BadInput
from archsmith.study import RunDirectory
from archsmith.train import Schedule, fit


def writes(text: str) -> Callable[[Path], object]:
    def work(folder: Path) -> object:
        assert list(folder.iterdir()) == []
        (folder / "inner").mkdir()
        (folder / "inner" / "a.txt").write_text(text)
        return {"text": text}

    return work


def refuses(folder: Path) -> object:
    raise AssertionError("this stage has finished and must not be done again")


def files(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


def test_a_finished_stage_is_read_and_not_done_again(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "a" / "run", {"minutes": 2}) as run:
        assert run.stage("load", writes("x")) == {"text": "x"}
        assert run.stage("load", refuses) == {"text": "x"}
        assert run.stage("count", lambda folder: [1, 2]) == [1, 2]
    with RunDirectory.open(tmp_path / "a" / "run") as run:
        assert run.plan == {"minutes": 2}
        assert run.stage("load", refuses) == {"text": "x"} and run.stage("count", refuses) == [1, 2]
        assert (run.folder("load") / "inner" / "a.txt").read_text() == "x"
        assert not run.folder("count").exists()
        assert run.finished("load") and not run.finished("train")
        assert list(run.seconds()) == ["load", "count"] and min(run.seconds().values()) >= 0.0
    assert files(tmp_path / "a" / "run") == {
        ".lock",
        "archsmith.log",
        "load/inner/a.txt",
        "plan.json",
        "stages/count.json",
        "stages/load.json",
    }


def test_a_result_is_the_same_done_and_read(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", None) as run:
        done = run.stage("a", lambda folder: {"pair": (1, 2), 3: "x"})
        assert done == run.stage("a", refuses) == {"pair": [1, 2], "3": "x"}


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_a_stage_that_raises_leaves_nothing_and_can_be_done_again(tmp_path: Path, error: BaseException) -> None:
    def work(folder: Path) -> object:
        (folder / "half.bin").write_bytes(b"half")
        raise error

    with RunDirectory.create(tmp_path / "run", {}) as run:
        run.stage("first", writes("kept"))
        before = files(run.path)
        with pytest.raises(type(error)):
            run.stage("second", work)
        assert files(run.path) == before
        assert run.stage("second", writes("y")) == {"text": "y"}


def test_a_result_that_json_cannot_hold_ends_no_stage(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        for result in (object(), float("nan")):
            with pytest.raises((TypeError, ValueError)):
                run.stage("a", lambda folder, result=result: result)  # type: ignore[misc]
        assert not run.finished("a")


def raises_full(folder: Path) -> object:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "x"))


def raises_full_inside(folder: Path) -> object:
    try:
        raises_full(folder)
    except OSError as error:
        raise RuntimeError("could not serialise") from error
    return None


def raises_full_as_text(folder: Path) -> object:
    raise RuntimeError("Error while serializing: No space left on device (os error 28)")


@pytest.mark.parametrize("work", [raises_full, raises_full_inside, raises_full_as_text])
def test_a_full_disk_is_one_line_and_keeps_earlier_stages(tmp_path: Path, work: Callable[[Path], object]) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        run.stage("first", writes("kept"))
        with pytest.raises(BadInput) as caught:
            run.stage("second", work)
        assert "must have room" in str(caught.value) and str(run.path) in str(caught.value)
        assert run.stage("first", refuses) == {"text": "kept"} and not run.finished("second")


def test_a_really_full_device_is_noticed(tmp_path: Path) -> None:
    def work(folder: Path) -> object:
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(b"x")
        return None

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with RunDirectory.create(tmp_path / "run", {}) as run, pytest.raises(BadInput, match="must have room"):
        run.stage("a", work)


def test_a_full_device_is_noticed_by_a_checkpoint(tmp_path: Path) -> None:
    def work(folder: Path) -> object:
        layer = torch.nn.Linear(2, 1)
        (folder / "a.writing").symlink_to("/dev/full")

        def loss(rows: list[int]) -> torch.Tensor:
            return layer(torch.ones(1, 2)).sum()

        fit(layer, lambda epoch: [[0]], loss, Schedule(60), checkpoint=folder / "a.checkpoint")
        return None

    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with RunDirectory.create(tmp_path / "run", {}) as run, pytest.raises(BadInput, match="must have room"):
        run.stage("a", work)


def test_a_log_that_cannot_be_written_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    folder = tmp_path / "run"
    folder.mkdir()
    with RunDirectory.create(folder, {}) as run:
        (folder / "archsmith.log").symlink_to("/dev/full")
        run.stage("a", writes("kept"))
    assert capfd.readouterr().err == ""


def non_empty(path: Path) -> Path:
    path.mkdir()
    (path / "mine.txt").write_text("dear")
    return path


def a_file(path: Path) -> Path:
    path.write_text("dear")
    return path


def a_run(path: Path) -> Path:
    RunDirectory.create(path, {"old": True}).close()
    return path


NO_PLACE = {
    "a folder with files": (non_empty, "needs an empty folder"),
    "a finished run": (a_run, "needs an empty folder"),
    "a file": (a_file, "must be writable"),
    "inside a file": (lambda path: a_file(path) / "run", "must be writable"),
    "where nothing can be made": (lambda path: Path("/proc/archsmith-run"), "must be writable"),
}


@pytest.mark.parametrize("name", NO_PLACE)
def test_a_run_begins_only_in_an_empty_writable_folder(tmp_path: Path, name: str) -> None:
    make, reason = NO_PLACE[name]
    path = make(tmp_path / "x")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(BadInput) as caught:
        RunDirectory.create(path, {})
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(BadInput, match="must be writable"):
        RunDirectory.create(tmp_path / "locked" / "run", {})


NO_RUN = {
    "nothing": lambda path: path,
    "an empty folder": lambda path: path.mkdir() or path,
    "a folder with files": non_empty,
    "a file": a_file,
}


@pytest.mark.parametrize("name", NO_RUN)
def test_only_a_run_can_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"a run is a folder with a plan\.json"):
        RunDirectory.open(NO_RUN[name](tmp_path / "x"))


def test_a_broken_record_names_its_file(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        run.stage("a", writes("x"))
        (run.path / "stages" / "a.json").write_text('{"result": ')
        with pytest.raises(BadInput, match=r"readable JSON.*a\.json"):
            run.stage("a", refuses)


@pytest.mark.parametrize("name", ["", "../up", "stages", "A", "a/b", ".scratch", "a.json"])
def test_a_stage_needs_a_plain_name(tmp_path: Path, name: str) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run, pytest.raises(BadInput, match="a stage's name"):
        run.stage(name, writes("x"))


def test_a_stage_does_not_overwrite_what_is_there(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        (run.path / "model").mkdir()
        (run.path / "model" / "mine.txt").write_text("dear")
        with pytest.raises(BadInput, match="must not be there before it"):
            run.stage("model", writes("x"))
        assert (run.path / "model" / "mine.txt").read_text() == "dear" and not run.finished("model")


def test_a_stage_may_hold_a_stage(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        assert run.stage("outer", lambda folder: [run.stage("inner", writes("x")), writes("y")(folder)]) == [
            {"text": "x"},
            {"text": "y"},
        ]
        assert (run.folder("outer") / "inner" / "a.txt").read_text() == "y"


def test_two_processes_cannot_work_in_one_run(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        program = f"from archsmith.study import RunDirectory; RunDirectory.open({str(run.path)!r})"
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert f"one process at a time may work in a run; found process {os.getpid()}" in other.stderr
    RunDirectory.open(tmp_path / "run").close()


def test_the_lock_of_a_dead_process_holds_nobody(tmp_path: Path) -> None:
    program = (
        "import os, signal; from archsmith.study import RunDirectory\n"
        f"run = RunDirectory.create({str(tmp_path / 'run')!r}, {{}}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    with RunDirectory.open(tmp_path / "run") as run:
        assert run.stage("a", writes("x")) == {"text": "x"}


def test_the_log_tells_the_stages(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        run.stage("load", writes("x"))
        run.log.info("a line of the job")
    run.log.info("not of this run any more")
    log = (tmp_path / "run" / "archsmith.log").read_text()
    assert all(part in log for part in ("stage load begins", "stage load took", "a line of the job"))
    assert "not of this run" not in log


def assert_whole(path: Path) -> None:
    """Nothing half-done is visible: every record has its folder in full, every folder its record."""
    finished = {record.stem for record in (path / "stages").glob("*.json")}
    assert {p.name for p in path.iterdir() if p.is_dir()} == {"stages", *finished}
    for name in finished:
        assert json.loads((path / "stages" / f"{name}.json").read_text())["result"] == {"stage": name, "files": 40}
        assert sorted(p.stat().st_size for p in (path / name).iterdir()) == [200 * len(name)] * 40


def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """The child is forked after everything is imported, so that the kills fall into the work and not into imports."""
    rng = np.random.default_rng(0)
    for attempt in range(8):
        path = tmp_path / f"run{attempt}"
        did = path.with_name(path.name + "-did")
        done: dict[str, int] = {}
        for _ in range(4):
            child = os.fork()
            if child == 0:
                job(path)
                os._exit(0)
            time.sleep(float(rng.uniform(0.0, 0.12)))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if (path / "plan.json").exists():
                RunDirectory.open(path).close()
                assert_whole(path)
                times = did.read_text().split() if did.exists() else []
                assert all(times.count(name) == count for name, count in done.items())
                done = {record.stem: times.count(record.stem) for record in (path / "stages").glob("*.json")}
        assert job(path) == [{"stage": name, "files": 40} for name in STAGES]
        assert_whole(path)
        assert all(did.read_text().split().count(name) == count for name, count in done.items())


@pytest.mark.parametrize("moment", ["files written", "record written", "folder moved", "record moved"])
def test_a_kill_at_each_step_of_an_ending(tmp_path: Path, moment: str) -> None:
    """The states that a death at each step of `stage` leaves, made by hand."""
    path = tmp_path / "run"
    RunDirectory.create(path, {}).close()
    scratch, part = path / ".scratch" / "load", path / "stages" / "load.json.part"
    scratch.mkdir(parents=True)
    (scratch / "a.txt").write_text("x")
    done = False
    if moment != "files written":
        part.write_text('{"result": {"text": "x"}, "seconds": 1.0}')
    if moment in ("folder moved", "record moved"):
        scratch.rename(path / "load")
        done = True
    if moment == "record moved":
        part.rename(path / "stages" / "load.json")
    with RunDirectory.open(path) as run:
        assert run.finished("load") == done == (run.folder("load") / "a.txt").exists()
        assert not (path / ".scratch").exists() and not part.exists()
        assert run.stage("load", refuses if done else writes("x")) == {"text": "x"}
