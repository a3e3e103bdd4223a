"""What a model answers for every row of a part, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.tasks.task import Part, Task

Call = Callable[[dict[str, Tensor]], np.ndarray]


def calling(wrapped: nn.Module) -> Call:
    """A wrapped module as a function of inputs that gives a float32 array (batch, outputs)."""

    def call(inputs: dict[str, Tensor]) -> np.ndarray:
        with torch.inference_mode():
            outputs: Tensor = wrapped(**inputs)
        return np.asarray(outputs.float().cpu().numpy())

    return call


def answers(
    call: Call,
    task: Task,
    part: Part,
    rows: Sequence[int] | None = None,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Outputs of the rows of a part (all of them unless given), in the order of `rows`: (rows, outputs) float32.

    Raises `BadInput` where an output is not finite: such a model has no quality.
    """
    chosen = np.arange(task.size(part)) if rows is None else np.asarray(rows, dtype=np.int64)
    order = np.argsort(task.lengths(part)[chosen], kind="stable")
    found: np.ndarray | None = None
    for begin in range(0, len(order), batch):
        at = order[begin : begin + batch]
        outputs = call(task.inputs(part, [int(row) for row in chosen[at]]))
        if not np.isfinite(outputs).all():
            raise BadInput("a model's outputs must be finite", "NaN or infinity", f"the {part} part")
        if found is None:
            found = np.zeros((len(chosen), *outputs.shape[1:]), np.float32)
        found[at] = outputs
        if progress:
            progress(min(len(order), begin + batch))
    if found is None:
        raise BadInput("a part must have rows", "none", f"the {part} part")
    return found


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a plain array without pickle."""
    np.save(path, array, allow_pickle=False)


def load_array(path: Path) -> np.ndarray:
    """Read what `save_array` wrote, mapped from disk."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
