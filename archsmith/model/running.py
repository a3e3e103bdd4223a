"""Running a model to compare it: its main outputs, how far two runs are apart, inputs like the ones given."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from archsmith.errors import BadInput
from archsmith.model.wide import computed_wide

Inputs = Mapping[str, Tensor]


def main_outputs(out: Any) -> list[Tensor]:
    """The outputs that count: every tensor of a plain tensor, tuple or list; the first of a mapping.

    A mapping (a transformers output) carries by-products, such as caches, that follow the inside of the model.
    """
    if isinstance(out, Mapping):
        found = [x for x in out.values() if isinstance(x, Tensor) and x.is_floating_point()]
        return [x for x in found if x.dim() > 0][:1] or found[:1]
    values = [out] if isinstance(out, Tensor) else tree_leaves(out)
    return [x for x in values if isinstance(x, Tensor) and x.is_floating_point()]


def run(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The main outputs of one forward pass without gradient."""
    with torch.no_grad(), computed_wide(model):
        return main_outputs(model(**inputs))


def give_back_memory() -> None:
    """Let the C library return freed memory to the system, where it can: what it keeps can be as large as the model."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def deviation(outputs: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest difference over the largest magnitude of the reference; infinite where shapes or NaN differ.

    >>> deviation([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 4.0])])
    0.5
    """
    worst = 0.0
    if len(outputs) != len(reference):
        return float("inf")
    for one, other in zip(outputs, reference, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if not one.numel():
            continue
        gap, scale = (one - other).abs().max(), other.abs().max()
        if torch.isfinite(gap) and torch.isfinite(scale):
            worst = max(worst, float(gap / scale.clamp_min(1e-30)))
            continue
        finite = torch.isfinite(other)
        if not torch.equal(finite, torch.isfinite(one)):
            return float("inf")
        gap = (one - other)[finite].abs()
        scale = other[finite].abs()
        if gap.numel():
            worst = max(worst, float(gap.max() / scale.max().clamp_min(1e-30)))
    return worst


def like(inputs: Inputs, rng: np.random.Generator) -> dict[str, Tensor]:
    """Other inputs of the same shapes: identifiers change places along the last dimension, numbers get noise.

    Masks (booleans, or at most two values) stay as they are, so that the same parts of the model run.
    """
    varied: dict[str, Tensor] = {}
    for name, value in inputs.items():
        varied[name] = value
        if not isinstance(value, Tensor) or value.dim() == 0:
            continue
        if value.is_floating_point():
            noise = torch.from_numpy(rng.standard_normal(tuple(value.shape))).to(value)
            varied[name] = value + 0.3 * value.std(correction=0) * noise
        elif value.dtype != torch.bool and len(set(value.flatten().tolist())) > 2:
            varied[name] = value[..., torch.from_numpy(rng.permutation(value.shape[-1]))]
    return varied


def check_runs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The main outputs. Raises `BadInput` where the forward pass fails, gives NaN, or differs from run to run."""
    place = type(model).__name__
    running: list[str] = []
    try:
        first, second = _watched(model, inputs, running), _watched(model, inputs, running)
    except Exception as error:
        raise BadInput(
            "the model must run on the example inputs",
            f"{type(error).__name__}: {str(error)[:300]}",
            f"{place}, module {running[-1]!r}" if running else place,
            "check the names, shapes and types of the inputs",
        ) from error
    if not first[0]:
        raise BadInput("the model must give a floating-point tensor", "none", place, "wrap it so that it does")
    for number, tensor in enumerate(first[0]):
        if torch.isnan(tensor).any():
            raise BadInput(
                "the model's output must not be NaN", f"NaN in output {number}", place, "check the weights and inputs"
            )
    if deviation(first[0], second[0]) > 1e-5:
        culprit = next((name for name, total in first[1].items() if total != second[1].get(name)), "the model itself")
        raise BadInput(
            "the model must be deterministic in eval mode",
            f"two runs on the same input that differ by {deviation(first[0], second[0]):.1g} of the output's scale",
            f"{place}, module {culprit!r}",
            "turn its randomness off in eval mode",
        )
    return first[0]


def _watched(model: nn.Module, inputs: Inputs, running: list[str]) -> tuple[list[Tensor], dict[str, float]]:
    """Main outputs, and the sum over each module's first output in the order in which modules end.

    `running`: the paths of the modules that run, which stay there where one of them fails.
    """
    sums: dict[str, float] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            running.pop()
            for tensor in [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.is_floating_point()][:1]:
                sums.setdefault(name, float(tensor.double().sum()))

        return hook

    def begin(name: str) -> Any:
        return lambda module, args: running.append(name)

    named = [(name, module) for name, module in model.named_modules() if name]
    handles = [module.register_forward_hook(note(name)) for name, module in named]
    handles += [module.register_forward_pre_hook(begin(name)) for name, module in named]
    try:
        return run(model, inputs), sums
    finally:
        for handle in handles:
            handle.remove()
