"""Norms over batches after a cut: their running statistics anew, with or without a change of what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from archsmith.model.wide import computed_wide

BatchNorm = nn.modules.batchnorm._BatchNorm


def scale_of(norm: BatchNorm) -> Tensor:
    """What a norm in eval mode multiplies each channel by, (channels,)."""
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    return scale * norm.weight.detach() if norm.affine else scale


def restate(norm: BatchNorm, mean: Tensor, variance: Tensor, shift: Tensor) -> None:
    """Give a norm the statistics of what enters it, (channels,), while it computes the same and `shift` (channels,)
    more: training, which takes the statistics of its batches, then begins where eval ends."""
    assert norm.affine and norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        scale = scale_of(norm)
        norm.bias.add_(scale * (mean - norm.running_mean) + shift)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def recalibrate(small: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> int:
    """Running statistics of norms over batches anew, as means over these batches; returns how many norms there are.

    What was cut before a norm moves the means that it takes off; a network that is not trained any more needs this.
    """
    norms = [m for m in small.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
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
