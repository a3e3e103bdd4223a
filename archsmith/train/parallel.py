"""One network trained by several processes: each takes its share of every batch, and torch's own
DistributedDataParallel averages the gradients, so that a step is the step of the whole batch.

    together(work, (scratch, recipe, folder), processes=2)      # in each process: work(share, tell, scratch, ...)

Every process builds the same network from the same plain data, and the first writes what came of it. Norms over batches
see a process's share alone, which is another network than one process trains; on CUDA they are put together
(`SyncBatchNorm`), which torch has for no other device. Dropout draws in each process by itself.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, multiprocessing, nn

from archsmith.errors import ArchsmithError, BadInput, first_line

Tell = Callable[[int], None]


@dataclass(frozen=True)
class Share:
    """Which of the processes that train a network this is: `rank` from 0 to `processes` - 1."""

    rank: int
    processes: int

    def of(self, rows: int) -> tuple[slice, float]:
        """Which of the rows of a batch are this process's, and what the mean of their losses is to be multiplied by so
        that the mean over processes is that of the batch. A batch that gives no process two rows is everybody's.

        >>> Share(0, 2).of(5), Share(1, 2).of(5), Share(1, 2).of(3)
        ((slice(0, None, 2), 1.2), (slice(1, None, 2), 0.8), (slice(None, None, None), 1.0))
        """
        if rows < 2 * self.processes:
            return slice(None), 1.0
        own = len(range(self.rank, rows, self.processes))
        return slice(self.rank, None, self.processes), own * self.processes / rows


class Work(Protocol):
    """What each process does: a function of a module, since processes find it by its name."""

    def __call__(self, share: Share, tell: Tell, *given: Any) -> None: ...


class Spread(nn.Module):
    """A module that is called in its place while several processes train it.

    The module that averages gradients is made at the first step, when the training loop has laid out the weights.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._averaging: list[nn.Module] = []  # not a part of this one

    def forward(self, **inputs: Tensor) -> Any:
        """What the module gives."""
        if not torch.is_grad_enabled():
            return self.module(**inputs)
        if not self._averaging:
            # A network may have parts that its output does not need.
            self._averaging.append(nn.parallel.DistributedDataParallel(self.module, find_unused_parameters=True))
        return self._averaging[0](**inputs)


def spread(module: nn.Module) -> Spread:
    """The module to call in place of this one, whose parameters stay where they are."""
    if any(parameter.is_cuda for parameter in module.parameters()):
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return Spread(module)


def agreed(loss: Tensor) -> Tensor:
    """The same gradient with the mean of all processes' losses as its value: what one finds not finite, all skip."""
    mean = loss.detach().clone()
    distributed.all_reduce(mean)
    return loss + (mean / distributed.get_world_size() - loss.detach())


def agreed_on(value: int, share: Share | None) -> int:
    """What the first process says; the value itself where there is one process."""
    if share is None:
        return value
    said = torch.tensor(value)
    distributed.broadcast(said, 0)
    return int(said)


def together(
    work: Work, given: Sequence[Any], processes: int, *, device: str = "cpu", tell: Tell | None = None
) -> None:
    """Do `work(share, tell, *given)` in so many processes, which can average tensors, and wait for all of them.

    Args:
        given: plain data, the same for all.
        device: "cpu" (gloo) or "cuda" (nccl).
        tell: gets the steps that the first process tells of.

    Raises:
        ArchsmithError: one has failed, with its reason; the others are ended.
    """
    if processes < 1:
        raise BadInput("processes are at least 1", str(processes), "--processes")
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // processes)
    running: dict[Connection, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        meeting = (f"file://{Path(folder) / 'meeting'}", "nccl" if device == "cuda" else "gloo")
        try:
            for rank in range(processes):
                here, there = context.Pipe(duplex=False)
                told = (Share(rank, processes), meeting, threads, os.getpid(), there)
                child = context.Process(target=_take_part, args=(told, work, tuple(given)), daemon=True)
                child.start()
                there.close()
                running[here] = child
            _follow(running, tell)
        finally:
            for child in running.values():
                child.kill()
            for child in running.values():
                child.join()


def _follow(running: dict[Connection, Any], tell: Tell | None) -> None:
    """Read what the processes say until each has said that it is done."""
    waiting = dict(running)
    while waiting:
        for pipe in wait(list(waiting)):
            assert isinstance(pipe, Connection)
            try:
                said = pipe.recv()
            except EOFError:
                waiting[pipe].join()
                said = f"it ended with code {waiting[pipe].exitcode}"
            if isinstance(said, str):
                raise ArchsmithError(f"every process of a training must end well; one did not: {said}")
            if said is None:
                del waiting[pipe]
            elif tell is not None:
                tell(said)


def _take_part(told: tuple[Share, tuple[str, str], int, int, Connection], work: Work, given: tuple[Any, ...]) -> None:
    share, (meeting, backend), threads, parent, pipe = told
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    try:
        distributed.init_process_group(backend, init_method=meeting, rank=share.rank, world_size=share.processes)
        work(share, pipe.send if share.rank == 0 else lambda step: None, *given)
        distributed.barrier()
        pipe.send(None)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {first_line(error)}")
        os._exit(1)  # a process group that is left in the middle may wait for ever at its end
    distributed.destroy_process_group()


def _leave_with(parent: int) -> None:
    """End with the process that began this one, however that ended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
