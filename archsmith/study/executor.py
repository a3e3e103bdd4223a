"""Where trials are evaluated: here, or in processes of this machine. Ray's workers are in `ray_workers.py`."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from archsmith.evaluate.limited import leave_with_parent

P = ParamSpec("P")
T = TypeVar("T")


class WorkerDied(Exception):
    """The process that ran a call is gone: killed, out of memory, or crashed."""


class Executor(Protocol):
    """Takes calls and gives futures. `workers`: how many calls it runs at once."""

    workers: int

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start a call. What it raises, the future raises; `WorkerDied` where its process died."""
        ...

    def close(self) -> None:
        """Wait for what runs and free the workers."""
        ...


class Inline:
    """Runs every call at once, in this thread.

    >>> Inline().submit(max, 1, 2).result()
    2
    """

    workers = 1

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call and give its finished future; Ctrl-C is not caught."""
        future: Future[T] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing to free."""


class LocalProcesses:
    """Runs calls in processes of this machine, started afresh (spawn), so no lock or thread of this one is inherited.

    Calls, arguments and results must be picklable between them. A process that dies takes down the call it ran and no
    other: each slot is a pool of its own, started again when next needed. They share the threads of this
    process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.threads = max(1, _threads() // workers)
        self._pools: list[ProcessPoolExecutor | None] = [None] * workers
        self._running: list[Future[Any] | None] = [None] * workers

    def submit(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the call in a free process, or behind the call of the first slot where none is free."""
        free = [slot for slot, future in enumerate(self._running) if future is None or future.done()]
        slot = free[0] if free else 0
        try:
            future = self._pool(slot).submit(call, *args, **kwargs)
        except BrokenProcessPool:
            self._drop(slot)
            future = self._pool(slot).submit(call, *args, **kwargs)
        self._running[slot] = future
        return translated(future, BrokenProcessPool)

    def close(self) -> None:
        """Wait for what runs and end the processes."""
        for slot in range(self.workers):
            self._drop(slot)

    def _pool(self, slot: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        pool = self._pools[slot] or ProcessPoolExecutor(1, context, _begin, (os.getpid(), self.threads))
        self._pools[slot] = pool
        return pool

    def _drop(self, slot: int) -> None:
        pool = self._pools[slot]
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        self._pools[slot] = None


def _threads() -> int:
    """Of this process: as many as were asked for, or as there are cores that it may run on."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if told.isdecimal() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(parent: int, threads: int) -> None:
    """What a process does before its first call. `threads`: as many as it may have, in what is loaded and what will
    be."""
    leave_with_parent(parent)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threadpool_limits(threads)


def translated(inner: Future[T], *deaths: type[BaseException]) -> Future[T]:
    """A future that says `WorkerDied` where the inner one raises one of an executor's own words for that."""
    outer: Future[T] = Future()
    inner.add_done_callback(partial(_pass_on, outer, deaths))
    return outer


def _pass_on(outer: Future[T], deaths: tuple[type[BaseException], ...], inner: Future[T]) -> None:
    error = inner.exception()
    if error is None:
        outer.set_result(inner.result())
    elif isinstance(error, deaths):
        outer.set_exception(WorkerDied("its process died: killed, out of memory, or crashed"))
    else:
        outer.set_exception(error)
