"""Several processes work on one study: none proposes what another does, and none is missed when it dies."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from postgresql import programs, server
from scale import lines, search, worker

from archsmith.search import random_search
from archsmith.space import Architecture, Choice, Space
from archsmith.study import LocalProcesses, Store, run
from archsmith.study.loop import is_hopeless, is_stuck
from archsmith.study.store import ATTEMPTS
from archsmith.trial import Proposal, Trial

SMALL = Space({"a": Choice(range(1, 41))})


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed and could not be")
    with server() as started:
        yield started.url


@pytest.fixture(params=["study.db", "study.journal", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    return str(tmp_path / request.param)


def test_three_processes_share_a_study_and_one_is_killed(tmp_path: Path, location: str) -> None:
    trials, log = 40, tmp_path / "log"
    others = [worker(location, log, trials, 0.2) for _ in range(2)]
    until, busy = time.monotonic() + 120, list[int]()
    while (len({pid for *_, pid in lines(log)}) < 2 or not busy) and time.monotonic() < until:
        ended = {(point, pid) for _, what, point, pid in lines(log) if what == "end"}
        busy = [pid for _, what, point, pid in lines(log) if what == "begin" and (point, pid) not in ended]
        time.sleep(0.02)
    killed = busy[-1]
    os.kill(killed, signal.SIGKILL)
    history = search(location, log, trials, 0.2)
    for each in others:
        each.wait(60)
    assert [trial.number for trial in history] == list(range(trials))
    assert {trial.status for trial in history} == {"complete"}
    points = ["".join(str(v) for v in trial.proposal.architecture.values()) for trial in history]
    assert len(set(points)) == trials
    written = lines(log)
    ends = Counter(point for _, what, point, _ in written if what == "end")
    done = {point for _, what, point, pid in written if what == "end" and pid == killed}
    lost = [point for point, count in ends.items() if count > 1]  # it came to an end, but died before it told the store
    assert set(ends) == set(points) and len(lost) <= 1 and set(lost) <= done
    assert sum(ends.values()) == trials + len(lost)
    assert len({pid for *_, pid in written}) == 3
    begins = Counter(point for _, what, point, _ in written if what == "begin")
    again = [point for point, count in begins.items() if count > 1]
    assert len(again) <= 1 and sum(begins.values()) <= trials + 1  # what the killed one was at, and nothing else
    proposals = [trial.proposal.architecture for trial in history]
    alone = search(str(tmp_path / "alone.journal"), tmp_path / "alone", trials, 0.0)
    assert proposals == [trial.proposal.architecture for trial in alone]  # random search does not look at what came out


def test_a_server_that_restarts_is_waited_for(tmp_path: Path) -> None:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed and could not be")
    with server() as started:
        store = Store.open(started.url, SMALL, ["loss"], 0)
        for number in range(3):
            with store.turn():
                assert store.begin(Proposal(Architecture({"a": number + 1}))) == number
                started.control("restart", "-m", "fast")
            assert store.finish(number, {"loss": 1.0}, 0.0).status == "complete"
        started.control("restart", "-m", "fast")
        assert [trial.status for trial in store.history()] == ["complete"] * 3
        store.close()


def test_a_turn_that_is_lost_makes_no_two_trials_alike(tmp_path: Path) -> None:
    """As where a database restarts between what a process reads and what it writes."""
    location, interrupted = str(tmp_path / "study.db"), list[Architecture]()
    chosen, other = random_search(), Store.open(location, SMALL, ["loss"], 0)

    def slow(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        proposals = chosen(space, history, n, rng)
        if len(history) == 3 and not interrupted:
            interrupted.append(proposals[0].architecture)
            other.finish(other.begin(proposals[0]), {"loss": 0.0}, 0.0)
        return proposals

    history = run(SMALL, slow, lambda *_: {"loss": 1.0}, trials=10, store=location, seed=0, objectives=["loss"])
    other.close()
    proposed = [trial.proposal.architecture for trial in history]
    assert interrupted and len(set(proposed)) == 10
    plain = run(
        SMALL, chosen, lambda *_: {"loss": 1.0}, trials=10, store=tmp_path / "plain.db", seed=0, objectives=["loss"]
    )
    assert proposed == [trial.proposal.architecture for trial in plain]  # each as its number asks for


def test_a_trial_that_nobody_runs_is_taken_over_by_its_own_process(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s.db", SMALL, ["loss"], 0)
    number = store.begin(Proposal(Architecture({"a": 1})))
    assert store.adopt_orphans(store.history()) == []
    store._mine.clear()  # the answer to the write was lost, so the process does not know of it
    assert [trial.number for trial in store.adopt_orphans(store.history())] == [number]


@pytest.mark.parametrize(
    ("other", "taken"),
    [({"processes": "pid:[1]"}, False), ({"host": "far"}, False), ({"boot": "before"}, True), ({}, True)],
)
def test_whether_a_worker_is_dead_is_asked_where_its_processes_are_seen(
    tmp_path: Path, other: dict[str, str], taken: bool
) -> None:
    store = Store.open(tmp_path / "s.db", SMALL, ["loss"], 0)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    store._me |= {"pid": gone.pid, **other}
    number = store.begin(Proposal(Architecture({"a": 1})))
    with closing(Store.open(tmp_path / "s.db", SMALL, ["loss"], 0)) as mine:
        assert [trial.number for trial in mine.adopt_orphans(mine.history())] == ([number] if taken else [])
    store.close()


def test_a_trial_that_costs_a_third_process_has_failed(tmp_path: Path) -> None:
    location = str(tmp_path / "s.journal")
    program = (
        "import os, signal\nfrom archsmith.space import *\nfrom archsmith.study import *\n"
        "from archsmith.search import random_search\n"
        "def deadly(proposal, rng):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"run(Space({{'a': Choice(range(1, 41))}}), random_search(), deadly, trials=1, store={location!r}, seed=0,"
        " objectives=['loss'])\n"
    )
    for _ in range(ATTEMPTS):
        assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert [trial.status for trial in Store.read(location).history()] == ["running"]
    history = run(
        SMALL, random_search(), lambda p, rng: {"loss": 0.0}, trials=2, store=location, seed=0, objectives=["loss"]
    )
    assert [trial.status for trial in history] == ["failed", "complete"]
    assert history[0].error == "its worker died, 3 times"


def test_wall_clock_ends_a_study_that_can_go_on(tmp_path: Path) -> None:
    def slow(proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        time.sleep(0.2)
        return {"loss": 0.0}

    def search(minutes: float | None) -> list[Trial]:
        return run(
            SMALL, random_search(), slow, trials=10, store=tmp_path / "s.journal", seed=0, objectives=["loss"],
            minutes=minutes,
        )  # fmt: skip

    first = search(0.5 / 60)
    assert 1 <= len(first) < 10 and {trial.status for trial in first} == {"complete"}
    assert len(search(None)) == 10


def test_patience_ends_a_study_that_finds_nothing_new(tmp_path: Path) -> None:
    def flat(proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        return {"loss": 1.0 if int(proposal.architecture["a"]) < 30 else 0.0, "ms": 1.0}

    history = run(
        SMALL, random_search(), flat, trials=40, store=tmp_path / "s.journal", seed=0, objectives=["loss", "ms"],
        patience=6,
    )  # fmt: skip
    assert 7 <= len(history) < 40
    assert is_stuck(history, ["loss", "ms"], 6) and not is_stuck(history[:-1], ["loss", "ms"], 6)
    best = next(trial.number for trial in history if trial.values["loss"] == 0.0)
    assert len(history) == best + 7


def test_nothing_begins_once_it_is_said_to_stop(tmp_path: Path) -> None:
    done: list[Proposal] = []

    def evaluate(proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        done.append(proposal)
        if len(done) == 9:
            raise KeyboardInterrupt
        return {"loss": 1.0}

    def tried() -> list[Trial]:
        return run(
            SMALL, random_search(), evaluate, trials=40, store=tmp_path / "s.db", seed=0, objectives=["loss"],
            stop=lambda: len(done) in (5, 9),
        )  # fmt: skip

    assert len(tried()) == 5
    done.append(done[0])
    with pytest.raises(KeyboardInterrupt):
        tried()
    assert [trial.status for trial in tried()] == ["complete"] * 7 + ["running"]  # what died is not begun again either


def test_bounds_are_given_up_later_than_what_fails() -> None:
    def failed(error: str, count: int) -> list[Trial]:
        return [Trial(i, Proposal(Architecture({})), "failed", error=error) for i in range(count)]

    over = "BudgetNotReachable: it is over latency<=1ms: 2 ms"
    assert not is_hopeless(failed("broken", 19)) and is_hopeless(failed("broken", 20))
    assert not is_hopeless(failed(over, 99)) and is_hopeless(failed(over, 100))
    assert not is_hopeless(failed(f"EvaluationEnded: {over}", 99))  # within limits
    assert not is_hopeless(failed(over, 60) + failed("broken", 19))
    assert is_hopeless(failed(over, 60) + failed("broken", 20))


class Once:
    """Kills its process the first time that it is asked for 3."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        if proposal.architecture["a"] == 3 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": float(int(proposal.architecture["a"]))}


def test_a_trial_whose_process_was_killed_by_chance_is_tried_again(tmp_path: Path) -> None:
    tiny = Space({"a": Choice(range(1, 6))})
    history = run(
        tiny, random_search(), Once(tmp_path / "mark"), trials=5, store=tmp_path / "s.journal", seed=0,
        objectives=["loss"], executor=LocalProcesses(2),
    )  # fmt: skip
    assert (tmp_path / "mark").exists()
    assert [trial.status for trial in history] == ["complete"] * 5
