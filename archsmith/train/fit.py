"""The one training loop: a loss of rows, a schedule of steps, a checkpoint that a killed run continues from.

    Fitted = fit(module, passes, loss, Schedule(steps=1000))

`passes(epoch)` gives the batches of one pass over the data, `loss(rows)` the mean loss of one batch. Both depend on
their argument alone, and dropout on seed and step, so the state of training is the module, the optimiser and the number
of the step; a loss that learns as well has what it learns in `beside`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import ArchsmithError, BadInput
from archsmith.train.norms import Norms
from archsmith.train.twins import Crew

LOG = logging.getLogger("archsmith")
Rows = list[int]
Ends = Callable[[Sequence[tuple[float, float]]], bool]
OPTIMISERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}
SPARSE_FROM = 1_000_000  # entries of a lookup table above which only the rows of a batch are updated


class Stateful(Protocol):
    """What learns in a loss, beside the module: its state, as tensors and plain data, goes into the checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """All that it has learnt."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Go on from there."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How to train. The learning rate rises for `warmup` of the steps, then falls as a cosine (Loshchilov 2017).

    `seed` is that of dropout; without `dropout` only norms over batches are in training mode. `optimiser`: "adamw" or
    "sgd" (Nesterov's momentum of 0.9).

    >>> plan = Schedule(steps=100, learning_rate=1.0, warmup=0.1)
    >>> [round(plan.rate(step), 2) for step in (0, 9, 55, 99)]
    [0.1, 1.0, 0.48, 0.0]
    """

    steps: int
    learning_rate: float = 5e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    clip: float = 1.0
    autocast: bool = False
    seed: int = 0
    dropout: bool = True
    optimiser: str = "adamw"

    def rate(self, step: int) -> float:
        """Learning rate of step 0 .. steps - 1."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        progress = (step + 1 - rise) / max(1, self.steps - rise)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Fitted:
    """What a training did: steps done, mean loss of the last tenth, steps skipped because the loss or its gradient was
    not finite, each validation as (step, value), and the wall seconds, with those of killed processes up to the
    checkpoint that was gone on from."""

    steps: int
    loss: float
    skipped: int
    validated: tuple[tuple[int, float], ...]
    seconds: float = field(compare=False)


def fit(
    module: nn.Module,
    passes: Callable[[int], Iterable[Rows]],
    loss: Callable[[Rows], Tensor],
    schedule: Schedule,
    *,
    validate: Callable[[], float] | None = None,
    checks: int = 0,
    ends: Ends | None = None,
    checkpoint: Path | None = None,
    saves: bool = True,
    beside: Stateful | None = None,
    progress: Callable[[int], None] | None = None,
    twins: Sequence[tuple[nn.Module, Callable[[Rows], Tensor]]] = (),
) -> Fitted:
    """Train the module in place, and leave it in eval mode. Parameters that ask for no gradient stay as they are.

    Args:
        passes: epoch -> the batches of one pass, each a list of rows.
        loss: rows -> mean loss, a scalar that depends on the module.
        validate: a value to minimise; with it and `checks` > 0 the module ends at its best check, not its last.
        ends: asked after each check, with all so far as (share of the steps, value); where it says so, training ends
            there, in the midst of its schedule. The module is then what the last step left, whatever its best check.
        checkpoint: a file that is written each twentieth of the steps and continued from where it exists.
        saves: whether this process writes it; of several that train one module together the first does.
        beside: what else changes while training, which the checkpoint then has too.
        twins: skeletons of the module, each with its own `loss`: they take a share of each batch, in threads.
            Not for modules that draw dropout or have norms over batches.

    Raises:
        ArchsmithError: the loss or its gradient is not finite many times in a row.
    """
    # A step of a ResNet takes half the time; twins share what is stored, so theirs stays where it is.
    turned = not twins and _turned(module, passes, loss)
    optimisers, restore = _optimisers(module, schedule)
    crew, norms = Crew(module, loss, twins), Norms(module)
    state = _State(optimisers, beside)
    best: tuple[float, dict[str, Tensor]] | None = None
    if checkpoint is not None and checkpoint.exists():
        best = state.load(module, checkpoint)
    began = time.perf_counter() - state.seconds
    every = max(1, schedule.steps // checks) if checks and validate else 0
    save_every = max(50, schedule.steps // 20)
    try:
        learn(module, schedule.dropout)
        for other, _ in twins:
            _follow(other, module)
        for rows in _stream(passes, state.step, schedule.steps):
            _step(crew, norms, rows, schedule, state)
            if every and validate and (state.step % every == 0 or state.step == schedule.steps):
                module.eval()
                value = validate()
                learn(module, schedule.dropout)
                state.validated.append((state.step, value))
                if ends is not None:
                    if ends([(step / schedule.steps, each) for step, each in state.validated]):
                        break
                elif best is None or value <= best[0] or math.isnan(best[0]):
                    best = (value, {name: tensor.detach().clone() for name, tensor in module.state_dict().items()})
            if checkpoint and saves and state.step % save_every == 0 and state.step < schedule.steps:
                state.seconds = time.perf_counter() - began
                state.save(module, checkpoint, best, schedule.steps)
            if progress:
                progress(state.step)
    finally:
        crew.close()
        restore()
        if turned:
            _lay(module, torch.contiguous_format)
        module.eval()
        module.zero_grad(set_to_none=True)
    if best is not None:
        module.load_state_dict(best[1])
    tail = state.losses[-max(1, len(state.losses) // 10) :]
    loss_of_tail = sum(tail) / max(1, len(tail))
    return Fitted(state.step, loss_of_tail, state.skipped, tuple(state.validated), time.perf_counter() - began)


def planned_steps(checkpoint: Path) -> int:
    """Of the training that wrote a checkpoint."""
    planned: int = torch.load(checkpoint, weights_only=True, mmap=True)["of"]
    return planned


def _turned(module: nn.Module, passes: Callable[[int], Iterable[Rows]], loss: Callable[[Rows], Tensor]) -> bool:
    """Lay the weights of convolutions with their channels last, where the module runs with what then comes out of them:
    a `view` of its own may not."""
    rows = next(iter(passes(0)), [])[:2]
    if not rows or not _lay(module, torch.channels_last):
        return False
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            loss(rows)
    except RuntimeError:
        _lay(module, torch.contiguous_format)
        return False
    finally:
        for part, training in modes.items():
            part.training = training
    return True


def _lay(module: nn.Module, form: torch.memory_format) -> bool:
    """Store the weights of plain 2-D convolutions in this order; whether there are any."""
    weights = [part._parameters.get("weight") for part in module.modules() if type(part) is nn.Conv2d]
    for weight in weights:
        if weight is not None:
            weight.data = weight.data.contiguous(memory_format=form)
    return any(weight is not None for weight in weights)


def learn(module: nn.Module, dropout: bool) -> None:
    """Training mode: of the whole module, or of its batch norms alone."""
    module.train(dropout)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()


class _State:
    """All that changes while training, besides the module."""

    def __init__(self, optimisers: list[torch.optim.Optimizer], beside: Stateful | None) -> None:
        self.optimisers, self.beside = optimisers, beside
        self.step = 0
        self.skipped = 0
        self.in_a_row = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.validated: list[tuple[int, float]] = []

    def save(self, module: nn.Module, path: Path, best: tuple[float, dict[str, Tensor]] | None, of: int) -> None:
        record = {
            "step": self.step,
            "of": of,
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "seconds": self.seconds,
            "losses": self.losses,
            "validated": self.validated,
            "module": module.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "best": best,
            "beside": None if self.beside is None else self.beside.state_dict(),
        }
        scratch = path.with_suffix(".writing")
        with scratch.open("wb") as file:  # a full disk is then Python's own error, with its number
            torch.save(record, file)
        scratch.replace(path)

    def load(self, module: nn.Module, path: Path) -> tuple[float, dict[str, Tensor]] | None:
        record = torch.load(path, weights_only=True)
        own = [optimiser.state_dict() for optimiser in self.optimisers]
        beside = record["beside"]
        there = module.state_dict().keys() <= record["module"].keys()
        alike = there and _sizes(record["optimisers"]) == _sizes(own) and (beside is None) == (self.beside is None)
        if not alike:  # another version laid the weights out in another way
            LOG.warning("the checkpoint is of other weights; training begins anew")
            return None
        self.step, self.skipped, self.in_a_row = record["step"], record["skipped"], record["in_a_row"]
        self.seconds = record["seconds"]
        self.losses, self.validated = record["losses"], [tuple(pair) for pair in record["validated"]]
        module.load_state_dict(record["module"])
        for optimiser, saved in zip(self.optimisers, record["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        if self.beside is not None:
            self.beside.load_state_dict(beside)
        best: tuple[float, dict[str, Tensor]] | None = record["best"]
        return best


def _sizes(states: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """How many weights each group of each optimiser has."""
    return [[len(group["params"]) for group in state["param_groups"]] for state in states]


def _follow(twin: nn.Module, module: nn.Module) -> None:
    """Put a twin into the mode of its module."""
    for its, own in zip(twin.modules(), module.modules(), strict=True):
        its.training = own.training
        if isinstance(own, nn.Embedding) and isinstance(its, nn.Embedding):
            its.sparse = own.sparse


def _step(crew: Crew, norms: Norms, rows: Rows, schedule: Schedule, state: _State) -> None:
    norms.keep()
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(state.step)
    with torch.random.fork_rng(devices=[]):
        # Dropout draws from torch's global generator: what it draws is the step's own, and the generator is put back.
        torch.default_generator.manual_seed(int(np.random.default_rng([schedule.seed, state.step]).integers(2**62)))
        lost = crew.gradient(rows, schedule.autocast)
    if math.isfinite(lost) and _descend(crew.module, schedule.clip, state.optimisers):
        state.losses.append(lost)
        state.in_a_row = 0
    else:
        norms.put_back()
        state.skipped += 1
        state.in_a_row += 1
        if state.in_a_row > 20:
            raise ArchsmithError(
                "training must have a finite loss with a finite gradient; "
                f"it was not for {state.in_a_row} steps up to step {state.step}. "
                "Lower the learning rate or check the data for extreme values."
            )
    state.step += 1


def _descend(module: nn.Module, clip: float, optimisers: list[torch.optim.Optimizer]) -> bool:
    """One step down the gradient; False where that is not finite and nothing was changed."""
    for optimiser in optimisers:
        if isinstance(optimiser, torch.optim.SparseAdam):
            _make_sparse(optimiser)
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if not all(bool(torch.isfinite(g.values()).all()) for g in gradients if g.is_sparse):
        return False
    dense = [p for p in module.parameters() if p.grad is not None and not p.grad.is_sparse]
    if not math.isfinite(float(nn.utils.clip_grad_norm_(dense, clip))):
        return False
    for optimiser in optimisers:
        optimiser.step()
    return True


def _make_sparse(optimiser: torch.optim.Optimizer) -> None:
    """A table that code outside its module used as a matrix has a dense gradient, which a sparse Adam does not take."""
    for group in optimiser.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad = (p.grad if p.grad.is_sparse else p.grad.to_sparse(1)).coalesce()


def _stream(passes: Callable[[int], Iterable[Rows]], start: int, stop: int) -> Iterator[Rows]:
    """Batches of steps start .. stop - 1, the same however often training was interrupted."""
    step, epoch = 0, 0
    while step < stop:
        before = step
        for rows in passes(epoch):
            if step >= stop:
                return
            if step >= start:
                yield rows
            step += 1
        if step == before:
            raise ArchsmithError("training must have at least one batch; the train part gave none")
        epoch += 1


def _optimisers(module: nn.Module, schedule: Schedule) -> tuple[list[torch.optim.Optimizer], Callable[[], None]]:
    """The optimiser for all but the large lookup tables that nothing else uses; those get a sparse Adam, which touches
    only the rows of the batch (a dense step over 30,000 rows costs more than the rest of a small network)."""
    if schedule.optimiser not in OPTIMISERS:
        known = f"there are: {', '.join(OPTIMISERS)}"
        raise BadInput("an optimiser is one that is known", repr(schedule.optimiser), "", known)
    uses: dict[int, int] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    tables = [
        part
        for part in module.modules()
        if type(part) is nn.Embedding
        and part.weight.numel() >= SPARSE_FROM
        and part.weight.requires_grad
        and part.max_norm is None
        and not part.scale_grad_by_freq
        and uses[id(part.weight)] == 1
        and not part.sparse
        and schedule.optimiser == "adamw"  # a table that another optimiser would update is updated by that
    ]
    for table in tables:
        table.sparse = True
    sparse = {id(table.weight) for table in tables}
    dense = [p for p in module.parameters() if p.requires_grad and id(p) not in sparse]
    decayed = [p for p in dense if p.dim() > 1]
    plain = [p for p in dense if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    found = [OPTIMISERS[schedule.optimiser](groups, lr=schedule.learning_rate, fused=True)]
    if tables:
        found.append(torch.optim.SparseAdam([table.weight for table in tables], lr=schedule.learning_rate))

    def restore() -> None:
        for table in tables:
            table.sparse = False

    return found, restore
