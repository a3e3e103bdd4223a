"""Many workers on one study: how much of the ideal throughput is kept, and what is lost when workers are killed.

Evaluations sleep for a second. Throughput is counted from when all workers have begun their first trial.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from postgresql import Server, server
from record import Record, main

from archsmith.search import random_search
from archsmith.space import Choice, Space
from archsmith.study import Executor, LocalProcesses, Store
from archsmith.study import run as run_study
from archsmith.study.ray_workers import RayWorkers
from archsmith.trial import Proposal, Trial

WORKERS, SECONDS, TRIALS, KEPT = 8, 1.0, 200, 0.9
KILLS, EVERY, KILLED_TRIALS = 20, 2.0, 400
SPACE = Space({name: Choice(range(10)) for name in "abcdef"})


@dataclass(frozen=True)
class Sleeper:
    """Sleeps, and writes down when it began and when it ended."""

    log: str
    seconds: float

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """The sum of the choices."""
        point = "".join(str(proposal.architecture[name]) for name in SPACE.choices)
        self.say("begin", point)
        time.sleep(self.seconds)
        self.say("end", point)
        return {"loss": float(sum(map(int, point)))}

    def say(self, what: str, point: str) -> None:
        """One line, in one write."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{time.time():.4f} {what} {point} {os.getpid()}\n".encode())
        os.close(descriptor)


def search(
    store: str, log: Path, trials: int, seconds: float = SECONDS, executor: Executor | None = None
) -> list[Trial]:
    """The study, or this process's part of it."""
    evaluate = Sleeper(str(log), seconds)
    return run_study(
        SPACE, random_search(), evaluate, trials=trials, store=store, seed=0, objectives=["loss"], executor=executor
    )


def run(record: Record, options: argparse.Namespace) -> None:
    """Throughput of local processes and Ray on each store; then killed workers and a restarted server."""
    with tempfile.TemporaryDirectory() as name, server() as started:
        folder = Path(name)
        stores = {"journal": str(folder / "{}.journal"), "SQLite": str(folder / "{}.db"), "PostgreSQL": started.url}
        makers: dict[str, Callable[[], Executor]] = {"8 local processes": lambda: LocalProcesses(WORKERS)}
        makers["8 Ray workers"] = lambda: RayWorkers(WORKERS)
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)
        for kind, make in makers.items():
            for where, location in stores.items():
                fresh(started)
                log = folder / f"{where}-{kind[2:5]}.log"
                history = search(location.format(kind[2:5]), log, TRIALS, executor=make())
                assert len(history) == TRIALS and all(trial.status == "complete" for trial in history)
                kept = throughput(log)
                must = None if where == "SQLite" else kept >= KEPT
                record.say(f"{kind}, {where}: share of the ideal throughput", kept, "", must)
        for where, location in stores.items():
            fresh(started)
            damage = killed(location.format("killed"), folder / where, None)
            say_killed(record, f"{where}: {KILLS} workers killed", damage)
        fresh(started)
        say_killed(record, "PostgreSQL restarted three times", killed(started.url, folder / "restarted", started))


@dataclass(frozen=True)
class Damage:
    """Trials that are missing, that came to their end again though their worker had gone on from the first end, and
    that were made good because their worker was killed between the end and the record of it."""

    lost: int
    twice: int
    untold: int


def say_killed(record: Record, what: str, damage: Damage) -> None:
    """The three counts; a value that its worker took with it must be found again, so it is no fault."""
    record.say(f"{what}: trials lost", damage.lost, "", damage.lost == 0)
    record.say(f"{what}: trials run twice to the end", damage.twice, "", damage.twice == 0)
    record.say(f"{what}: trials whose worker was killed before it told their value", damage.untold)


def fresh(started: Server) -> None:
    """Take the last study out of the server."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(started.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("DROP SCHEMA public CASCADE"))
        connection.execute(sqlalchemy.text("CREATE SCHEMA public"))
    engine.dispose()


def lines(log: Path) -> list[tuple[float, str, str, int]]:
    """What evaluations wrote down: when, "begin" or "end", the point, the process."""
    rows = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [(float(at), what, point, int(pid)) for at, what, point, pid in rows]


def throughput(log: Path) -> float:
    """Trials ended a second from when all workers had begun, as a share of the ideal."""
    rows = lines(log)
    first: dict[int, float] = {}
    for at, what, _, pid in rows:
        if what == "begin":
            first.setdefault(pid, at)
    begun = sorted(first.values())[WORKERS - 1]
    last = max(at for at, what, *_ in rows if what == "begin")  # behind it, workers have nothing to do
    ended = sum(what == "end" and begun < at <= last for at, what, *_ in rows)
    return ended * SECONDS / (last - begun) / WORKERS


def worker(store: str, log: Path, trials: int, seconds: float = SECONDS) -> subprocess.Popen[bytes]:
    """A process of its own that takes part in a study."""
    return subprocess.Popen([sys.executable, __file__, "worker", store, str(log), str(trials), str(seconds)])


def killed(store: str, log: Path, restarted: Server | None) -> Damage:
    """What becomes of a study of eight processes of which one is killed at random every two seconds, and another begun,
    or whose server is restarted."""
    rng = np.random.default_rng(0)
    dead: set[int] = set()

    workers = [worker(store, log, KILLED_TRIALS) for _ in range(WORKERS)]
    while len({pid for *_, pid in lines(log)}) < WORKERS:
        time.sleep(0.2)
    for _ in range(3 if restarted else KILLS):
        time.sleep(10.0 if restarted else EVERY)
        if restarted:
            restarted.control("restart", "-m", "fast")
            continue
        at = int(rng.integers(WORKERS))
        os.kill(workers[at].pid, signal.SIGKILL)
        dead.add(workers[at].pid)
        threading.Thread(target=workers[at].wait).start()
        workers[at] = worker(store, log, KILLED_TRIALS)
    codes = [each.wait(600) for each in workers]
    assert codes == [0] * WORKERS, codes
    opened = Store.read(store)
    history = opened.history()
    opened.close()
    points = ["".join(map(str, trial.proposal.architecture.values())) for trial in history]
    done = [point for trial, point in zip(history, points, strict=True) if trial.status == "complete"]
    last = {pid: (what, point) for _, what, point, pid in lines(log) if pid in dead}
    untold = {point for what, point in last.values() if what == "end"}
    ends = Counter(point for _, what, point, pid in lines(log) if what == "end" and last.get(pid) != (what, point))
    again = {point for point in untold if ends[point]}
    return Damage(KILLED_TRIALS - len(set(done)), sum(count > 1 for count in ends.values()), len(again))


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        search(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        main("scale", run)
