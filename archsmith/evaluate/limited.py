"""An evaluator kept within limits: each call in a child process, which is ended where it takes too long or too much."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

import numpy as np
import psutil

from archsmith.errors import BadInput
from archsmith.trial import Evaluator, Proposal

LOOK_SECONDS = 0.05
GIB = 2**30


class EvaluationEnded(Exception):
    """An evaluation that broke a limit, or took its process down."""


@dataclass(eq=False)
class Limited:
    """Evaluates in a child process of this one, which stays for the next call as long as it lives.

    `minutes`: wall-clock of one evaluation. `gigabytes`: memory (GiB, resident) of the child and its children, what
    libraries take included. A crash, an exit or a broken limit raises `EvaluationEnded` with the reason, and is thereby
    one failed trial. The evaluator must be picklable, and so is this.
    """

    evaluator: Evaluator
    minutes: float | None = None
    gigabytes: float | None = None

    def __post_init__(self) -> None:
        for name, limit in (("minutes", self.minutes), ("gigabytes", self.gigabytes)):
            if limit is not None and not limit > 0:
                raise BadInput("a limit is above 0", f"{limit:g}", name)

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        """The evaluator's values. What it raises comes out as `EvaluationEnded` with its kind and its words."""
        child = CHILDREN.get(self._key)
        if child is None or not child.process.is_alive():
            child = CHILDREN[self._key] = _Child.start(self.evaluator)
        found = child.ask(proposal, rng, self.minutes, self.gigabytes)
        if isinstance(found, str):
            raise EvaluationEnded(found)
        return found

    def close(self) -> None:
        """End the child."""
        child = CHILDREN.pop(self._key, None)
        if child is not None:
            child.end()

    @cached_property
    def _key(self) -> bytes:
        """What its child is kept under: this may be sent to a process anew for each call."""
        return pickle.dumps(self.evaluator)


@dataclass(eq=False)
class _Child:
    """A process that evaluates what comes down its pipe."""

    process: BaseProcess
    pipe: Connection

    def __post_init__(self) -> None:
        # It ends with this object, and before the interpreter waits for its processes at its own end.
        self._finalizer = Finalize(self, _end, args=(self.process, self.pipe), exitpriority=10)

    @classmethod
    def start(cls, evaluator: Evaluator) -> _Child:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        # Not a daemon in multiprocessing's sense: those may have no children, and data loaders do.
        process = context.Process(target=_serve, args=(evaluator, there, os.getpid()))
        process.start()
        there.close()
        child = cls(process, here)
        begun = child._wait(None, None, "start")  # what limits an evaluation does not count the start of Python
        if isinstance(begun, str):
            raise EvaluationEnded(begun)
        return child

    def ask(
        self, proposal: Proposal, rng: np.random.Generator, minutes: float | None, gigabytes: float | None
    ) -> Mapping[str, float] | str:
        """Its values, or why there are none."""
        try:
            self.pipe.send((proposal, rng))
            return self._wait(minutes, gigabytes, "evaluate")
        except BaseException:  # its answer, which nobody waits for, must not become the next one's
            self.end()
            raise

    def _wait(self, minutes: float | None, gigabytes: float | None, doing: str) -> Mapping[str, float] | str:
        began = time.monotonic()
        while not self.pipe.poll(LOOK_SECONDS):
            if not self.process.is_alive() and not self.pipe.poll():
                return self._died(doing)
            if minutes is not None and time.monotonic() - began > 60 * minutes:
                self.end()
                return f"a trial may take {minutes:g} minutes; it was stopped after them"
            held = self._held() / GIB if gigabytes is not None else 0.0
            if gigabytes is not None and held > gigabytes:
                self.end()
                return f"a trial may hold {gigabytes:g} GiB of memory; it was stopped with {held:.2f}"
        try:
            found: Mapping[str, float] | str = self.pipe.recv()
        except (EOFError, ConnectionError):
            return self._died(doing)
        return found

    def _died(self, doing: str) -> str:
        self.process.join()
        _end_group(self.process.pid)
        code = self.process.exitcode or 0
        how = f"killed by signal {-code}" if code < 0 else f"it left with code {code}"
        return f"the process that was to {doing} it ended: {how}"

    def _held(self) -> int:
        """Bytes that the child and its children hold."""
        total = 0
        for each in _family(self.process.pid):
            with suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
        return total

    def end(self) -> None:
        """Kill the child and its children."""
        self._finalizer()


def _end(process: BaseProcess, pipe: Connection) -> None:
    for each in _family(process.pid):
        with suppress(psutil.NoSuchProcess):
            each.kill()
    _end_group(process.pid)
    process.join()
    pipe.close()


def _end_group(pid: int | None) -> None:
    """Kill what a child of ours has left: it leads a group of its own, in which its children outlive it."""
    with suppress(ProcessLookupError, PermissionError):
        if pid is not None and pid != os.getpgrp():
            os.killpg(pid, signal.SIGKILL)


def _family(pid: int | None) -> list[psutil.Process]:
    """A process and all below it that still are."""
    try:
        own = psutil.Process(pid)
        return [own, *own.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _serve(evaluator: Evaluator, pipe: Connection, parent: int) -> None:
    os.setsid()
    leave_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    pipe.send({})
    while True:
        try:
            proposal, rng = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send({name: float(value) for name, value in evaluator(proposal, rng).items()})
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")


def leave_with_parent(parent: int) -> None:
    """Let this process and those below it end when its parent does: nobody is left to take what it finds."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    for each in _family(os.getpid())[1:]:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    os._exit(1)


CHILDREN: dict[bytes, _Child] = {}  # of this process, by what they evaluate
