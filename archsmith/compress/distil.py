"""Global distillation: a small network learns to answer as the original does, from answers that were cached once: the
task's divergence between its outputs and the cached ones (Hinton et al. 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.cost.cpu import lacks_bf16
from archsmith.errors import ArchsmithError
from archsmith.model.share import skeleton
from archsmith.tasks.task import Task
from archsmith.train import Fitted, Schedule, fit, twins_for


def distil(
    small: nn.Module,
    task: Task,
    outputs: np.ndarray,
    schedule: Schedule,
    seed: int,
    *,
    batch: int = 64,
    validate: Callable[[], float] | None = None,
    checks: int = 0,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fitted:
    """Distil into a wrapped module, in place; all of it learns, also what was frozen, and nothing is dropped
    out: a network that is made small for its task has no units to spare. In bf16 where the CPU has units for it.

    `outputs` (rows, outputs): the original's on the train part, NaN for rows that it was not asked; those are left out.
    """
    if len(outputs) != task.size("train"):
        raise ArchsmithError(f"cached outputs must be of the train part: {len(outputs)} for {task.size('train')} rows")

    answered = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
    # So many rows that about `batch` of them have an answer.
    drawn = round(batch * len(answered) / max(1, answered.sum()))

    def passes(epoch: int) -> Iterable[list[int]]:
        for rows in task.batches("train", drawn, np.random.default_rng([seed, epoch])):
            known = [row for row in rows if answered[row]]
            if known:
                yield known

    def loss_of(module: nn.Module) -> Callable[[list[int]], Tensor]:
        def loss(rows: list[int]) -> Tensor:
            wanted = torch.from_numpy(np.ascontiguousarray(outputs[rows]))
            return task.divergence(module(**task.inputs("train", rows)), wanted)

        return loss

    small.requires_grad_(True)
    alone = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in small.modules())
    twins = [skeleton(small) for _ in range(0 if alone else twins_for(batch))]
    return fit(
        small,
        passes,
        loss_of(small),
        replace(schedule, seed=seed, dropout=False, autocast=lacks_bf16() is None),
        validate=validate,
        checks=checks,
        checkpoint=checkpoint,
        progress=progress,
        twins=[(each, loss_of(each)) for each in twins],
    )
