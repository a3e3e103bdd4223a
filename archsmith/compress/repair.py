"""Closed-form repair: refit the layers that read what was cut, so that the residual stream stays where it was.

For each exit (the linear layer or convolution whose output is added to the residual stream), in the order of the
network, on calibration data: with x the exit's input in the small model, r the residual there and s the original's sum
(output + residual), find W, b that minimise |x W' + b - (s - r)|^2 + lambda |W - W_now|^2. Aiming at s - r and not at
the original's output lets each exit also undo what the cuts before it did to the stream. A norm over batches between an
exit and its sum multiplies each channel by a number: what is aimed at is divided by it.

T: tokens or positions (padding left out), K: inputs of the exit (of a convolution: channels x kernel), R: residual
width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from archsmith.compress.norms import BatchNorm, restate, scale_of
from archsmith.model import Anatomy
from archsmith.model.relay import Given, Relay, handed_on
from archsmith.model.wide import computed_wide

RIDGE = 0.1  # lambda as a share of the Gram matrix's mean diagonal
POSITIONS = 2**12  # of a batch of pictures that a convolution is refitted on
LEAST_SCALE = 1e-3  # of a channel in a norm, below which what enters it is left alone
ADDITIONS = frozenset({torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor})


@dataclass(frozen=True)
class Sum:
    """One exit in one forward pass: its input, what it gave, and the sum with the residual, (..., R) or (N, R, H, W).

    `norm`: the norm over batches between the exit and the sum, if there is one.
    """

    x: Tensor
    output: Tensor
    total: Tensor
    norm: BatchNorm | None = None


class _Enough(Exception):
    """The exit that was asked for has been seen; the rest of the pass is not needed."""


class _Watch(TorchDispatchMode):
    """Sees the outputs of exits being added to the residual stream."""

    def __init__(self, last: str | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.last = last
        self.waiting: dict[int, tuple[str, Tensor, Tensor, BatchNorm | None, Tensor]] = {}
        self.sums: dict[str, Sum] = {}

    def note(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.waiting[output.data_ptr()] = (name, args[0], output, None, output)

        return hook

    def pass_on(self, norm: nn.Module, args: Any, output: Any) -> None:
        """A hook of norms: what an exit gave goes through."""
        able = isinstance(norm, BatchNorm) and not norm.training and norm.running_var is not None
        if able and args[0].data_ptr() in self.waiting:
            name, x, given, _, _ = self.waiting.pop(args[0].data_ptr())
            self.waiting[output.data_ptr()] = (name, x, given, norm, output)  # type: ignore[assignment]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        seen = None
        if func in ADDITIONS and self.waiting and all(isinstance(a, Tensor) for a in args[:2]):
            for mine, other in ((args[0], args[1]), (args[1], args[0])):
                held = self.waiting.get(mine.data_ptr(), (None,))[-1]
                if held is not None and mine.shape == other.shape == held.shape and mine.stride() == held.stride():
                    seen = self.waiting.pop(mine.data_ptr())
                    break
        if seen is None and func._schema.is_mutable and args and isinstance(args[0], Tensor):
            self.waiting.pop(args[0].data_ptr(), None)  # an activation in place: it is no more what the exit gave
        result = func(*args, **(kwargs or {}))
        if seen is not None:
            name, x, output, norm, _ = seen
            self.sums[name] = Sum(x, output, result.clone(), norm)  # others may write into it
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
    hooks += [m.register_forward_hook(mode.pass_on) for m in wrapped.modules() if isinstance(m, BatchNorm)]
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
    """Paths of the layers that read an inner axis (heads, feed-forward, channels) and may write the residual stream."""
    found: list[str] = []
    for axis in anatomy.axes.values():
        if axis.kind not in ("heads", "kv_groups", "ffn", "channels"):
            continue
        for place in axis.places:
            path = place.parameter.removesuffix(".weight")
            if place.dim == 1 and path != place.parameter and _can_be_refitted(model.get_submodule(path)):
                found.append(path)
    order = {path: number for number, (path, _) in enumerate(model.named_modules())}
    return sorted(set(found), key=lambda path: order[path])


def _can_be_refitted(module: nn.Module) -> bool:
    plain = type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros"
    return type(module) is nn.Linear or (plain and not isinstance(module.padding, str))


def repair(
    original: nn.Module,
    small: nn.Module,
    exits: Sequence[tuple[nn.Module, nn.Module]],
    batches: Sequence[Mapping[str, Tensor]],
    kept: Mapping[nn.Module, Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
    layers: Sequence[nn.Module] = (),
) -> list[float]:
    """Refit the small model's exits in place, in the order in which they run; returns the share of squared error that
    is left at each.

    Args:
        original, small: wrapped modules `(**inputs) -> Tensor`.
        exits: (exit of the original, exit of the small).
        batches: calibration inputs; where they have `attention_mask`, padding is left out.
        kept: exit of the original -> positions (R,) of its residual stream that the small model kept; all where none.
        layers: of the small model; those behind which no exit is refitted any more are not run again.
    """
    pairs = {str(number): pair for number, pair in enumerate(exits)}
    goal = _originals(original, {name: pair[0] for name, pair in pairs.items()}, batches, kept or {})
    done = Relay(small, batches, layers)
    left = []
    for number, (name, total_TR) in enumerate(goal.items()):
        exit_ = pairs[name][1]
        if isinstance(exit_, nn.Linear | nn.Conv2d):
            done.advance(exit_)
            left.append(_refit(small, exit_, batches, done.given, total_TR))
        if progress:
            progress(number + 1)
    return left


def _originals(
    original: nn.Module,
    exits: Mapping[str, nn.Module],
    batches: Sequence[Mapping[str, Tensor]],
    kept: Mapping[nn.Module, Tensor],
) -> dict[str, Tensor]:
    """The original's sums at each exit: name -> (T, R)."""
    parts: dict[str, list[Tensor]] = {}
    for inputs in batches:
        for name, seen in watch(original, inputs, exits).items():
            total_TR = _positions(seen.total, exits[name], inputs)
            here = kept.get(exits[name])
            parts.setdefault(name, []).append(total_TR if here is None else total_TR[:, here])
    return {name: torch.cat(found) for name, found in parts.items()}


class _Moments:
    """Sums over positions that a ridge regression is made of: of x x' (K + 1, K + 1), of x error' and x output' (K + 1,
    R), of output^2 (R,), of error^2, and how many positions there were. Nothing else of a batch is kept."""

    def __init__(self, width: int, leaving: int) -> None:
        self.gram = torch.zeros(width + 1, width + 1, dtype=torch.float64)
        self.cross, self.given = torch.zeros(2, width + 1, leaving, dtype=torch.float64)
        self.squares = torch.zeros(leaving, dtype=torch.float64)
        self.error, self.count = 0.0, 0

    def add(self, x1_TK: Tensor, error_TR: Tensor, output_TR: Tensor) -> None:
        """A batch: products in fp32 (twice as fast), their sums in fp64."""
        self.gram += (x1_TK.T @ x1_TK).double()
        self.cross += (x1_TK.T @ error_TR).double()
        self.given += (x1_TK.T @ output_TR).double()
        self.squares += output_TR.square().sum(0).double()
        self.error += float(error_TR.square().sum())
        self.count += len(x1_TK)

    def solved(self, shifts: bool) -> Tensor:
        """The change (K + 1, R) of weights, and of the bias where one may shift."""
        width = len(self.gram) - 1
        ridge = torch.full((width + 1,), RIDGE * float(self.gram.diagonal()[:width].mean()), dtype=torch.float64)
        ridge[width] = 0.0 if shifts else 1e30
        damped = self.gram + torch.diag(ridge) + 1e-8 * torch.eye(width + 1, dtype=torch.float64)
        found: Tensor = torch.linalg.solve(damped, self.cross)
        return found

    def left(self, change: Tensor) -> float:
        """The sum of squared errors after a change."""
        return max(0.0, self.error - float((change * (2 * self.cross - self.gram @ change)).sum()))

    def statistics(self, change: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output after a change of the weights (K + 1, R), both (R,)."""
        mean = (self.given[-1] + self.gram[-1] @ change) / self.count
        square = (self.squares + (change * (2 * self.given + self.gram @ change)).sum(0)) / self.count
        return mean, (square - mean.square()).clamp_min(0)


def _refit(
    small: nn.Module,
    exit_: nn.Linear | nn.Conv2d,
    batches: Sequence[Mapping[str, Tensor]],
    done: Sequence[Given],
    total_TR: Tensor,
) -> float:
    """Ridge regression pulled towards the present weights; returns the share of squared error left.

    `done`: for each batch what layers give that need not run."""
    width, leaving = exit_.weight[0].numel(), exit_.weight.shape[0]
    moments, norm = _Moments(width, leaving), None
    for inputs, given in zip(batches, done, strict=True):
        with handed_on(given):
            seen = watch(small, inputs, {"it": exit_}, last="it").get("it")
        if seen is None:
            return 1.0
        x1_TK, norm = _columns(seen.x, exit_, inputs), seen.norm
        wanted_TR = total_TR[moments.count : moments.count + len(x1_TK)]
        error_TR = wanted_TR - _positions(seen.total, exit_, inputs).float()
        moments.add(x1_TK, error_TR, _positions(seen.output, exit_, inputs).float())
    affine = norm is not None and norm.affine
    found = moments.solved(shifts=exit_.bias is not None or affine)
    scale = torch.ones(leaving) if norm is None else scale_of(norm).clone()
    change = torch.where(scale.abs() > LEAST_SCALE, found / scale, 0.0)  # what a norm takes to nought cannot be mended
    with torch.no_grad():
        exit_.weight.add_(change[:width].T.reshape(exit_.weight.shape).to(exit_.weight.dtype))
        if norm is not None and affine:
            change[width] = 0
            restate(norm, *moments.statistics(change), found[width])
        elif exit_.bias is not None:
            exit_.bias.add_(change[width].to(exit_.bias.dtype))
    return moments.left(found) / max(moments.error, 1e-30)


def _columns(x: Tensor, exit_: nn.Linear | nn.Conv2d, inputs: Mapping[str, Tensor]) -> Tensor:
    """What each position of an exit reads, and a one: (T, K + 1)."""
    if not isinstance(exit_, nn.Conv2d):
        x_TK = _positions(x, exit_, inputs).float()
        return torch.cat([x_TK, x_TK.new_ones(len(x_TK), 1)], 1)
    assert not isinstance(exit_.padding, str)
    rows = []
    for picture in x.float():  # one at a time: patches take a kernel's size times as much
        patches = functional.unfold(picture[None], exit_.kernel_size, exit_.dilation, exit_.padding, exit_.stride)[0].T
        rows.append(patches[:: _step(len(x), len(patches))])
    x_TK = torch.cat(rows)
    return torch.cat([x_TK, x_TK.new_ones(len(x_TK), 1)], 1)


def _positions(values: Tensor, exit_: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """(..., width) -> (T, width) without padding; of a convolution (N, width, H, W), at most `POSITIONS` in all."""
    if isinstance(exit_, nn.Conv2d):
        spread = values.permute(0, 2, 3, 1).flatten(1, 2)
        return spread[:, :: _step(len(spread), spread.shape[1])].flatten(0, 1)
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape == values.shape[:-1]:
        return values[mask.bool()]
    return values.reshape(-1, values.shape[-1])


def _step(pictures: int, positions: int) -> int:
    """Every so many positions of a picture are enough."""
    return max(1, pictures * positions // POSITIONS)
