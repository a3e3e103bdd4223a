"""Training from nothing on labels: how rows are varied, what the loss adds, how far the steps go.

B: rows, C: channels, H: height, W: width, K: classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.errors import ArchsmithError
from archsmith.tasks.pictures import reflected
from archsmith.tasks.task import Task
from archsmith.train.fit import Ends, Fitted, Schedule, fit, planned_steps
from archsmith.train.parallel import Share, agreed, spread

T = TypeVar("T")
LOG = logging.getLogger("archsmith")
NO_MEMORY = "can't allocate memory"  # what torch says on a CPU, in a plain RuntimeError


CHOSEN = (
    "activation_l1", "activation_l2", "batch", "clip", "cutout", "flip", "l1", "learning_rate", "mixup", "optimiser",
    "shift", "smoothing", "turn", "warmup", "weight_decay",
)  # fmt: skip
"""Of a recipe, what a space may leave open."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained from nothing. What varies pictures is left alone for all else.

    `smoothing`: of labels (Szegedy et al. 2016). `shift`: most pixels that a picture is moved, mirrored at its edges;
    `flip`: left to right, half of them; `turn`: most degrees; `cutout`: side of the square that is blanked (DeVries &
    Taylor 2017); `mixup`: alpha of the Beta distribution that two rows are mixed by (Zhang et al. 2018), 0 for none.
    `l1` times the mean of |weights|, `activation_l1` and `activation_l2` times the mean of |outputs| and of their
    squares over activations are added to the loss; L2 on weights is `weight_decay`, decoupled.
    """

    steps: int
    batch: int = 128
    optimiser: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.05
    clip: float = 1.0
    smoothing: float = 0.0
    shift: int = 0
    flip: bool = False
    turn: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    l1: float = 0.0
    activation_l1: float = 0.0
    activation_l2: float = 0.0
    autocast: bool = False
    share: float = 1.0

    def schedule(self, seed: int) -> Schedule:
        """For the training loop."""
        return Schedule(
            self.steps, self.learning_rate, self.warmup, self.weight_decay, self.clip, self.autocast, seed,
            optimiser=self.optimiser,
        )  # fmt: skip


def teach(
    wrapped: nn.Module,
    task: Task,
    recipe: Recipe,
    seed: int,
    *,
    validate: Callable[[], float] | None = None,
    checks: int = 0,
    ends: Ends | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
    share: Share | None = None,
) -> Fitted:
    """Train a wrapped module on the task's train labels, in place.

    Where a batch does not fit into memory, it is halved (`halving`). With a `share` this is one of several processes
    that train the same module (parallel.py); nothing is halved then.

    Raises:
        ArchsmithError: the loss is not finite many times in a row, or one row does not fit.
    """
    felt = _Felt(wrapped)
    order = np.random.default_rng([seed, 1]).permutation(task.size("train"))
    kept = set(order[: max(2, round(recipe.share * len(order)))].tolist()) if recipe.share < 1 else None
    begun = {name: tensor.detach().clone() for name, tensor in wrapped.state_dict().items()}

    def attempt(recipe: Recipe) -> Fitted:
        with felt.listening(bool(recipe.activation_l1 or recipe.activation_l2)):
            return fit(
                wrapped,
                passes_of(task, recipe.batch, seed, kept),
                losing(wrapped, task, recipe, seed, felt, share),
                recipe.schedule(seed + (share.rank << 32 if share else 0)),
                validate=validate,
                checks=checks,
                ends=ends,
                checkpoint=checkpoint,
                # The others have the first one's weights and norms from their first step on (DistributedDataParallel).
                saves=share is None or share.rank == 0,
                progress=progress,
            )

    def afresh() -> None:
        wrapped.load_state_dict(begun)

    return halving(recipe, attempt, afresh, checkpoint=checkpoint, share=share)


def halving(
    recipe: Recipe,
    attempt: Callable[[Recipe], T],
    afresh: Callable[[], None],
    *,
    checkpoint: Path | None = None,
    share: Share | None = None,
) -> T:
    """What an attempt to train by a recipe gives. Where a batch does not fit into memory, `afresh` undoes the attempt,
    and the next has half the batch and twice the steps, each smaller: as many rows. `checkpoint`: of the attempt, which
    is gone on from with the batch that it had. Nothing is halved where processes have a `share` each.

    Raises `ArchsmithError` where one row, or the share of a process, does not fit.
    """
    batch = recipe.batch
    if checkpoint is not None and checkpoint.exists():  # of a batch that had been halved
        batch //= max(1, planned_steps(checkpoint) // recipe.steps)
    while True:  # left by return, or by what is raised
        more = recipe.batch // batch
        rate = recipe.learning_rate / more**0.5
        try:
            return attempt(replace(recipe, batch=batch, steps=recipe.steps * more, learning_rate=rate))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError | MemoryError) and NO_MEMORY not in str(error):
                raise
            if share is not None:  # the others wait for this step
                law = "a process's share of a batch must fit into memory; it does not. Take fewer processes, or one."
                raise ArchsmithError(law) from error
            if batch == 1:
                raise ArchsmithError("one row must fit into memory; it does not. Search smaller networks.") from error
        batch //= 2
        LOG.warning("a batch of %d rows did not fit into memory; training begins anew with %d", 2 * batch, batch)
        afresh()
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)


def passes_of(
    task: Task, batch: int, seed: int, kept: AbstractSet[int] | None = None
) -> Callable[[int], Iterator[list[int]]]:
    """epoch -> the batches of a pass over the train rows, or those of them that are kept."""
    return lambda epoch: filled(task.batches("train", batch, np.random.default_rng([seed, epoch])), kept, batch)


def filled(batches: Iterable[list[int]], kept: AbstractSet[int] | None, size: int) -> Iterator[list[int]]:
    """Batches of `size` rows out of those that are kept; the last may be smaller, but one row alone is left out where
    there are others, since a norm over batches can take nothing from it.

    >>> list(filled([[1, 2, 3], [4, 5, 6], [7]], {2, 3, 5, 7}, 2))
    [[2, 3], [5, 7]]
    """
    waiting: list[int] = []
    given = False
    for batch in batches:
        waiting += batch if kept is None else [row for row in batch if row in kept]
        while len(waiting) >= size:
            yield waiting[:size]
            waiting, given = waiting[size:], True
    if len(waiting) > 1 or (waiting and not given):
        yield waiting


def losing(
    wrapped: nn.Module, task: Task, recipe: Recipe, seed: int, felt: _Felt | None = None, share: Share | None = None
) -> Callable[[list[int]], Tensor]:
    """rows -> the loss of the recipe, on varied rows; without what it asks of activations where nobody `felt` them.
    Each process that has a `share` varies the whole batch, as one process would, and goes on with its rows of it."""
    charged = _Charged(wrapped, recipe.l1)
    called = charged if share is None else spread(charged)

    def loss(rows: list[int]) -> Tensor:
        rng = np.random.default_rng([seed, 2, len(rows), *rows[:8]])
        inputs, targets = task.inputs("train", rows), task.targets("train", rows)
        if targets is None:
            assert task.self_taught  # a text is its own target
            targets = torch.zeros(len(rows))
        pictures = [name for name, value in inputs.items() if value.dim() == 4 and value.is_floating_point()]
        for name in pictures:
            inputs[name] = varied(inputs[name], recipe, rng)
        mixed = recipe.mixup > 0 and all(value.is_floating_point() for value in inputs.values())
        own, order = 1.0, np.arange(len(rows))
        if mixed:
            own, order = float(rng.beta(recipe.mixup, recipe.mixup)), rng.permutation(len(rows))
            inputs = {name: own * value + (1 - own) * value[order] for name, value in inputs.items()}
        mine, weight = (slice(None), 1.0) if share is None else share.of(len(rows))
        outputs, charge = called(**{name: value[mine] for name, value in inputs.items()})
        total = own * _task_loss(task, outputs, targets[mine], recipe.smoothing)
        if mixed:
            total = total + (1 - own) * _task_loss(task, outputs, targets[order][mine], recipe.smoothing)
        if recipe.l1:
            total = total + charge
        if felt is not None:
            total = total + felt.penalty(recipe.activation_l1, recipe.activation_l2)
        return total if share is None or not torch.is_grad_enabled() else agreed(total * weight)

    return loss


class _Charged(nn.Module):
    """A network that gives what its weights cost beside its outputs: what gradients are averaged of is one call."""

    def __init__(self, wrapped: nn.Module, l1: float) -> None:
        super().__init__()
        self.wrapped, self.l1 = wrapped, l1

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, ...) each -> (B, outputs), ()."""
        outputs: Tensor = self.wrapped(**inputs)
        if not self.l1:
            return outputs, torch.zeros(())
        weights = [p for p in self.wrapped.parameters() if p.dim() > 1]
        cost = self.l1 * torch.stack([p.abs().sum() for p in weights]).sum()
        return outputs, cost / max(1, sum(p.numel() for p in weights))


def _task_loss(task: Task, outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    if not smoothing:
        return task.loss(outputs, targets)
    plain = task.loss(outputs, targets)
    spread = -F.log_softmax(outputs.float(), dim=-1).mean()
    return (1 - smoothing) * plain + smoothing * spread


def varied(x_BCHW: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Pictures moved, flipped, turned and blanked, each by its own draw; (B, C, H, W) -> the same."""
    rows, _, height, width = x_BCHW.shape
    if recipe.shift or recipe.flip:
        most = min(recipe.shift, height - 1, width - 1)
        moved = rng.integers(-most, most + 1, (rows, 2))
        down = reflected(np.arange(height) + moved[:, :1], height)
        right = reflected(np.arange(width) + moved[:, 1:], width)
        if recipe.flip:
            right = np.where(rng.random((rows, 1)) < 0.5, right[:, ::-1], right)
        picked = (
            torch.arange(rows)[:, None, None],
            torch.from_numpy(down)[:, :, None],
            torch.from_numpy(right)[:, None],
        )
        x_BCHW = x_BCHW.permute(0, 2, 3, 1)[picked].permute(0, 3, 1, 2)
    if recipe.turn:
        angle = torch.from_numpy(np.deg2rad(rng.uniform(-recipe.turn, recipe.turn, rows))).float()
        zero, wide = torch.zeros_like(angle), width / height  # the grid's sides are of length 2, whatever the picture's
        rows_of = [
            torch.stack([angle.cos(), -angle.sin() / wide, zero], 1),
            torch.stack([angle.sin() * wide, angle.cos(), zero], 1),
        ]
        grid = F.affine_grid(torch.stack(rows_of, 1), list(x_BCHW.shape), align_corners=False)
        x_BCHW = F.grid_sample(x_BCHW, grid, padding_mode="reflection", align_corners=False)
    if recipe.cutout:
        centre = rng.integers(0, (height, width), (rows, 2))
        near = [
            (np.arange(size)[None] >= centre[:, i : i + 1] - recipe.cutout // 2)
            & (np.arange(size)[None] < centre[:, i : i + 1] + (recipe.cutout + 1) // 2)
            for i, size in enumerate((height, width))
        ]
        blank = torch.from_numpy(near[0][:, :, None] & near[1][:, None, :])
        x_BCHW = x_BCHW.masked_fill(blank[:, None], 0.0)
    return x_BCHW.contiguous()


class _Felt:
    """What activations give in a forward pass, for the loss."""

    KINDS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid)

    def __init__(self, module: nn.Module) -> None:
        self._parts = [part for part in module.modules() if isinstance(part, self.KINDS)]
        self._seen: list[Tensor] = []

    @contextmanager
    def listening(self, asked: bool) -> Iterator[None]:
        """Notes outputs within, where that is asked for."""
        self._seen.clear()
        hooks = [part.register_forward_hook(self._note) for part in self._parts if asked]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, part: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        if torch.is_grad_enabled():
            self._seen.append(out)

    def penalty(self, l1: float, l2: float) -> Tensor:
        """The weighted means of what was noted, which is then forgotten."""
        means = [l1 * out.abs().mean() + l2 * out.square().mean() for out in self._seen]
        self._seen.clear()
        return torch.stack(means).mean() if means else torch.zeros(())
