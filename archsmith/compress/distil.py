"""Distillation: a small network learns to answer as the original does, from answers that were cached once.

Global: the task's divergence between the small network's outputs and the cached ones (Hinton et al. 2015). Local: the
hidden states that leave each kept layer approach what the original hands to the layer that follows (Romero et al.
2015), on the kept units of the residual stream, together with the relations between tokens (Wang et al. 2021,
MiniLMv2, on hidden states), from a cache of a share of the data.

B: batch, L: length, R: kept residual width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from archsmith.cost.cpu import lacks_bf16
from archsmith.errors import ArchsmithError
from archsmith.model.share import skeleton
from archsmith.tasks.task import Task
from archsmith.train import Fitted, Schedule, fit, twins_for

LONGEST_RELATION = 192  # tokens; relations cost the square of the length


@dataclass(frozen=True)
class Hidden:
    """Hidden states of the original, in fixed batches: rows of each, and per layer a float16 tensor (B, L, width)."""

    rows: tuple[tuple[int, ...], ...]
    states: tuple[Mapping[str, Tensor], ...]


def remember_hidden(
    wrapped: nn.Module, task: Task, layers: Mapping[str, nn.Module], batches: Sequence[list[int]]
) -> Hidden:
    """Run the original over batches of train rows and keep what leaves each layer, as float16."""
    states = []
    for rows in batches:
        with torch.no_grad():
            seen = hidden_states(wrapped, task.inputs("train", rows), layers)[1]
        states.append({name: state.half() for name, state in seen.items()})
    return Hidden(tuple(tuple(rows) for rows in batches), tuple(states))


def hidden_states(
    wrapped: nn.Module, inputs: Mapping[str, Tensor], layers: Mapping[str, nn.Module]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the first tensor that leaves each layer."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            seen[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in layers.items()]
    try:
        output: Tensor = wrapped(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return output, seen


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
    """Global distillation of a wrapped module, in place; all of it learns, also what was frozen, and nothing is dropped
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


def distil_hidden(
    small: nn.Module,
    task: Task,
    hidden: Hidden,
    pairs: Sequence[tuple[str, nn.Module]],
    schedule: Schedule,
    seed: int,
    *,
    kept: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fitted:
    """Local distillation of a wrapped module, in place; all of it learns, also what was frozen.

    Args:
        pairs: (name of the original's layer in `hidden`, the small model's layer that should give the same).
        kept: positions (R,) of the original's residual stream that the small model kept, all unless given.
    """
    layers = {str(number): layer for number, (_, layer) in enumerate(pairs)}
    where = {rows: number for number, rows in enumerate(hidden.rows)}

    def passes(epoch: int) -> Iterable[list[int]]:
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(hidden.rows))
        return [list(hidden.rows[number]) for number in order]

    def loss(rows: list[int]) -> Tensor:
        inputs = task.inputs("train", rows)
        _, seen = hidden_states(small, inputs, layers)
        states = hidden.states[where[tuple(rows)]]
        mask = inputs.get("attention_mask")
        total = torch.zeros(())
        for number, (name, _) in enumerate(pairs):
            wanted = states[name].float()
            mine = seen[str(number)]
            if kept is not None and mine.shape != wanted.shape:
                total = total + relation_loss(mine, wanted, mask) * 0.1
                wanted = wanted[..., kept]
            total = total + state_loss(mine, wanted, mask)
        return total / len(pairs)

    small.requires_grad_(True)
    return fit(small, passes, loss, replace(schedule, seed=seed, dropout=False), progress=progress)


def state_loss(mine: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared error over the wanted states' variance, padding left out; shapes (B, L, R) and mask (B, L)."""
    if mask is not None and mask.shape == mine.shape[:-1]:
        mine, wanted = mine[mask.bool()], wanted[mask.bool()]
    return functional.mse_loss(mine, wanted) / (wanted.var() + 1e-6)


def relation_loss(mine: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Divergence between the tokens' similarities in both networks, whatever their widths: (B, L, r), (B, L, R).

    0 where states have no token dimension or too many tokens.
    """
    if mine.dim() != 3 or mine.shape[1] > LONGEST_RELATION or mask is None or mask.shape != mine.shape[:-1]:
        return mine.new_zeros(())
    hide = ~mask.bool()[:, None, :]

    def relations(states_BLR: Tensor) -> Tensor:
        unit = functional.normalize(states_BLR, dim=-1)
        return (10 * unit @ unit.transpose(1, 2)).masked_fill(hide, -1e4).log_softmax(-1)

    apart = functional.kl_div(relations(mine), relations(wanted), log_target=True, reduction="none").sum(-1)
    return apart[mask.bool()].mean()
