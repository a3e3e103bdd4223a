"""Closed-form repair: refit the linear layers that read what was cut, so that the residual stream stays where it was.

For each exit (the linear layer whose output is added to the residual stream), in the order of the network, on
calibration data: with x the exit's input in the small model, r the residual there and s the original's sum (output +
residual), find W, b that minimise |x W' + b - (s - r)|^2 + lambda |W - W_now|^2. Aiming at s - r and not at the
original's output lets each exit also undo what the cuts before it did to the stream.

T: tokens (padding left out), K: inputs of the exit, R: residual width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from archsmith.model import Anatomy
from archsmith.model.relay import Given, Relay, handed_on
from archsmith.model.wide import computed_wide

RIDGE = 0.1  # lambda as a share of the Gram matrix's mean diagonal
ADDITIONS = frozenset({torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor})


@dataclass(frozen=True)
class Sum:
    """One exit in one forward pass: its input (..., K), the residual it is added to, and the sum, both (..., R)."""

    x: Tensor
    residual: Tensor
    total: Tensor


class _Enough(Exception):
    """The exit that was asked for has been seen; the rest of the pass is not needed."""


class _Watch(TorchDispatchMode):
    """Sees the outputs of exits being added to the residual stream."""

    def __init__(self, last: str | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.last = last
        self.waiting: dict[int, tuple[str, Tensor, Tensor]] = {}
        self.sums: dict[str, Sum] = {}

    def note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.waiting[output.data_ptr()] = (name, args[0], output)

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        seen = None
        if func in ADDITIONS and self.waiting and all(isinstance(a, Tensor) for a in args[:2]):
            for mine, other in ((args[0], args[1]), (args[1], args[0])):
                if mine.data_ptr() in self.waiting and mine.shape == other.shape:
                    seen = (*self.waiting.pop(mine.data_ptr()), other.clone())
                    break
        result = func(*args, **(kwargs or {}))
        if seen is not None:
            name, x, _, residual = seen
            self.sums[name] = Sum(x, residual, result)
            if name == self.last:
                raise _Enough
        return result


def watch(
    wrapped: nn.Module, inputs: Mapping[str, Tensor], exits: Mapping[str, nn.Module], last: str | None = None
) -> dict[str, Sum]:
    """Run `wrapped` and return what was seen of each exit (by its name); stops early after `last`.

    An exit whose output is not added to a residual of its own shape is left out.
    """
    mode = _Watch(last)
    hooks = [module.register_forward_hook(mode.note(name)) for name, module in exits.items()]
    try:
        with torch.no_grad(), computed_wide(wrapped), mode:
            wrapped(**inputs)
    except _Enough:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return mode.sums


def exit_paths(model: nn.Module, anatomy: Anatomy) -> list[str]:
    """Paths of the linear layers that read an inner axis (heads, feed-forward) and write the residual stream."""
    found: list[str] = []
    for axis in anatomy.axes.values():
        if axis.kind not in ("heads", "kv_groups", "ffn"):
            continue
        for place in axis.places:
            path = place.parameter.removesuffix(".weight")
            if place.dim == 1 and path != place.parameter and type(model.get_submodule(path)) is nn.Linear:
                found.append(path)
    order = {path: number for number, (path, _) in enumerate(model.named_modules())}
    return sorted(set(found), key=lambda path: order[path])


def repair(
    original: nn.Module,
    small: nn.Module,
    exits: Sequence[tuple[nn.Module, nn.Module]],
    batches: Sequence[Mapping[str, Tensor]],
    kept: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    layers: Sequence[nn.Module] = (),
) -> list[float]:
    """Refit the small model's exits in place, in the order in which they run; returns the share of squared error that
    is left at each.

    Args:
        original, small: wrapped modules `(**inputs) -> Tensor`.
        exits: (exit of the original, exit of the small).
        batches: calibration inputs; where they have `attention_mask`, padding is left out.
        kept: positions (R,) of the original's residual stream that the small model kept, all unless given.
        layers: of the small model; those behind which no exit is refitted any more are not run again.
    """
    pairs = {str(number): pair for number, pair in enumerate(exits)}
    goal = _originals(original, {name: pair[0] for name, pair in pairs.items()}, batches, kept)
    done = Relay(small, batches, layers)
    left = []
    for number, (name, total_TR) in enumerate(goal.items()):
        exit_ = pairs[name][1]
        if isinstance(exit_, nn.Linear):
            done.advance(exit_)
            left.append(_refit(small, exit_, batches, done.given, total_TR))
        if progress:
            progress(number + 1)
    return left


def recalibrate(small: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> int:
    """Running statistics of norms over batches anew, as means over these batches; returns how many norms there are.

    What was cut before a norm moves the means that it takes off; a network that is not trained any more needs this.
    """
    norms = [m for m in small.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    norms = [norm for norm in norms if not norm.training]
    rows = [len(next(iter(inputs.values()))) for inputs in batches]
    batches = [inputs for inputs, count in zip(batches, rows, strict=True) if 2 * count >= max(rows) > 1]
    if not norms or not batches:  # a mean over single rows is none
        return 0
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    try:
        for inputs in batches:
            with torch.no_grad(), computed_wide(small):
                small(**inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    return len(norms)


def _originals(
    original: nn.Module, exits: Mapping[str, nn.Module], batches: Sequence[Mapping[str, Tensor]], kept: Tensor | None
) -> dict[str, Tensor]:
    """The original's sums at each exit: name -> (T, R)."""
    parts: dict[str, list[Tensor]] = {}
    for inputs in batches:
        for name, seen in watch(original, inputs, exits).items():
            total = seen.total if kept is None else seen.total[..., kept]
            parts.setdefault(name, []).append(_tokens(total, inputs))
    return {name: torch.cat(found) for name, found in parts.items()}


def _refit(
    small: nn.Module,
    exit_: nn.Linear,
    batches: Sequence[Mapping[str, Tensor]],
    done: Sequence[Given],
    total_TR: Tensor,
) -> float:
    """Ridge regression pulled towards the present weights; returns the share of squared error left.

    `done`: for each batch what layers give that need not run."""
    width = exit_.in_features
    gram = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    cross = torch.zeros(width + 1, exit_.out_features, dtype=torch.float64)
    before, begin = 0.0, 0
    samples: list[tuple[Tensor, Tensor]] = []
    for inputs, given in zip(batches, done, strict=True):
        with handed_on(given):
            seen = watch(small, inputs, {"it": exit_}, last="it").get("it")
        if seen is None:
            return 1.0
        x_TK = _tokens(seen.x, inputs).float()
        error_TR = total_TR[begin : begin + len(x_TK)] - _tokens(seen.total, inputs).float()
        begin += len(x_TK)
        x1_TK = torch.cat([x_TK, x_TK.new_ones(len(x_TK), 1)], 1)
        # Products of one batch in fp32 (twice as fast), their sum in fp64.
        gram += (x1_TK.T @ x1_TK).double()
        cross += (x1_TK.T @ error_TR).double()
        before += float(error_TR.square().sum())
        samples.append((x1_TK, error_TR))
    ridge = torch.full((width + 1,), RIDGE * float(gram.diagonal()[:width].mean()), dtype=torch.float64)
    ridge[width] = 0.0 if exit_.bias is not None else 1e30
    change = torch.linalg.solve(gram + torch.diag(ridge) + 1e-8 * torch.eye(width + 1, dtype=torch.float64), cross)
    with torch.no_grad():
        exit_.weight.add_(change[:width].T.to(exit_.weight.dtype))
        if exit_.bias is not None:
            exit_.bias.add_(change[width].to(exit_.bias.dtype))
    after = sum(float((error - x1 @ change.float()).square().sum()) for x1, error in samples)
    return after / max(before, 1e-30)


def _tokens(values: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """(..., width) -> (T, width) without padding."""
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape == values.shape[:-1]:
        return values[mask.bool()]
    return values.reshape(-1, values.shape[-1])
