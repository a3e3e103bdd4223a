"""Several threads in one step: each takes a share of the batch through a twin of the module.

Inside the small products of a small network a second core mostly waits; whole passes side by side keep it busy. A twin
is a `skeleton` of the module: it shares the parameters' storage and has gradients of its own, which are added in order,
so a step depends on the number of twins and not on which of them was done first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from archsmith.cost import pinned

LEAST_SHARE = 16  # rows below which a share is not worth a thread of its own

Loss = Callable[[list[int]], Tensor]


def twins_for(batch: int) -> int:
    """How many twins beside the module itself are worth their threads for batches of so many rows."""
    return max(1, min(torch.get_num_threads(), batch // LEAST_SHARE)) - 1


class Crew:
    """A module and its twins, each with its loss of rows. To be closed, for the threads."""

    def __init__(self, module: nn.Module, loss: Loss, twins: Sequence[tuple[nn.Module, Loss]]) -> None:
        self.module = module
        self.members = [(module, loss), *twins]
        self.pool = ThreadPoolExecutor(len(self.members)) if twins else None

    def close(self) -> None:
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()

    def gradient(self, rows: list[int], autocast: bool) -> float:
        """Mean loss of the rows; its gradient is left in the module's parameters, or none where it is not finite."""
        for module, _ in self.members:
            module.zero_grad(set_to_none=True)
        if self.pool is None or len(rows) < len(self.members):
            return _share(*self.members[0], rows, 1.0, autocast)
        n = len(self.members)
        threads = max(1, torch.get_num_threads() // n)
        with pinned(threads):
            waiting = [
                self.pool.submit(
                    _pinned_share, threads, module, loss, rows[at::n], len(rows[at::n]) / len(rows), autocast
                )
                for at, (module, loss) in enumerate(self.members)
            ]
            lost = sum([each.result() for each in waiting])
        if math.isfinite(lost):
            for module, _ in self.members[1:]:
                _add_gradients(self.module, module)
        return lost


def _pinned_share(threads: int, module: nn.Module, loss: Loss, rows: list[int], weight: float, autocast: bool) -> float:
    torch.set_num_threads(threads)  # it is a thread's own in OpenMP
    return _share(module, loss, rows, weight, autocast)


def _share(module: nn.Module, loss: Loss, rows: list[int], weight: float, autocast: bool) -> float:
    device = next(module.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        value = loss(rows) * weight
    lost = float(value.detach())
    if math.isfinite(lost):
        value.backward()  # type: ignore[no-untyped-call]
    return lost


def _add_gradients(module: nn.Module, other: nn.Module) -> None:
    with torch.no_grad():
        for mine, its in zip(module.parameters(), other.parameters(), strict=True):
            if its.grad is not None:
                mine.grad = its.grad if mine.grad is None else mine.grad + its.grad
                its.grad = None
