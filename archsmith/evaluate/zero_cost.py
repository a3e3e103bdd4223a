"""Scores of a network that has not been trained: one batch, no step. Of each, more is held to be better.

Each is a function of a module, a batch and its labels that leaves the module as it was. Losses are cross-entropy.
B: rows of the batch; N: units of one activation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Score = Callable[[nn.Module, Tensor, Tensor], float]
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
WEIGHED = (nn.Conv1d, nn.Conv2d, nn.Linear)
ZEN_STEP = 0.01


def zero_cost(module: nn.Module, x: Tensor, y: Tensor, names: Sequence[str]) -> dict[str, float]:
    """The scores of these names: x (B, ...), y (B,) class numbers."""
    if x.dim() == 4:  # pools and norms of pictures are some times as fast so
        x = x.contiguous(memory_format=torch.channels_last)
    return {name: SCORES[name](module, x, y) for name in names}


def rank_ensemble(scores: Mapping[str, Sequence[float]]) -> np.ndarray:
    """(networks,): the mean of each network's ranks by several scores, 0 the worst, 1 the best.

    >>> rank_ensemble({"a": [1.0, 2.0, 3.0], "b": [10.0, 30.0, 20.0]}).tolist()
    [0.0, 0.75, 0.75]
    """
    ranks = np.stack([rankdata(np.nan_to_num(np.asarray(each, float), nan=-np.inf)) for each in scores.values()])
    return np.asarray((ranks.mean(axis=0) - 1) / max(1, ranks.shape[1] - 1))


def parameters(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """How many there are."""
    return float(sum(p.numel() for p in module.parameters()))


def macs(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Multiply-accumulates of a row, counted where no kernel of a processor hides any."""
    plain = copy.deepcopy(module).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        plain(x[:1].to("meta"))
    return float(counter.get_total_flops()) / 2


def naswot(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mellor et al. 2021: the log-determinant of how alike the rows' activation patterns are, all activations summed.

    K_ij is the number of units that are on in both rows or off in both.
    """
    kernel = torch.zeros(len(x), len(x), dtype=torch.float64)

    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        on = given[0].detach() > 0
        on_BN = (on.permute(0, 2, 3, 1) if on.dim() == 4 else on).flatten(1).float()  # of channels last, not copied
        both = on_BN @ on_BN.T
        alone = both.diagonal()
        kernel.add_(2 * both + on_BN.shape[1] - alone[:, None] - alone[None])

    with _batch_statistics(module), _hooked(module, ACTIVATIONS, note), torch.no_grad():
        module(x)
    sign, value = torch.linalg.slogdet(kernel)
    return float(value) if sign > 0 else -np.inf


def synflow(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Tanaka et al. 2020: the sum of weight x gradient where all weights are positive and the input is ones; the log of
    it. Norms let everything through, as in Abdelfattah et al. 2021."""
    one = torch.ones_like(x[:1]) if not x.is_floating_point() else torch.ones_like(x[:1], dtype=torch.float64)
    with _batch_statistics(module), _without_norms(module), torch.enable_grad():
        weights = {name: p.detach().abs().double().requires_grad_() for name, p in module.named_parameters()}
        out = torch.func.functional_call(module, weights, (one,)).sum()
        slopes = torch.autograd.grad(out, list(weights.values()), allow_unused=True)
    felt = zip(weights.values(), slopes, strict=True)
    total = sum(float((p.detach() * slope).abs().sum()) for p, slope in felt if slope is not None)
    return float(np.log(total)) if np.isfinite(total) and total > 0 else -np.inf


def gradient_norm(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """The sum of the gradients' norms (Abdelfattah et al. 2021)."""
    return sum(float(g.norm()) for _, g in _gradients(module, x, y))


def snip(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Lee et al. 2019: the sum of |weight x gradient|."""
    return sum(float((p * g).abs().sum()) for p, g in _gradients(module, x, y))


def grasp(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Wang et al. 2020: minus the sum of weight x (Hessian x gradient)."""
    weights = _weights(module)
    # The quick kinds of attention have no second derivative.
    with _batch_statistics(module), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        first = torch.autograd.grad(F.cross_entropy(module(x), y), weights, create_graph=True, materialize_grads=True)
        product = torch.stack([(g * g.detach()).sum() for g in first]).sum()
        second = torch.autograd.grad(product, weights, allow_unused=True)
    return -sum(float((w * h).detach().sum()) for w, h in zip(weights, second, strict=True) if h is not None)


def fisher(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Turner et al. 2020: the sum over channels of half the mean square of activation x gradient."""
    outputs: list[Tensor] = []
    places: list[list[int]] = []

    def note(part: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        outputs.append(out)
        channels = out.dim() - 1 if isinstance(part, nn.Linear) else 1
        places.append([at for at in range(1, out.dim()) if at != channels])

    hooks = [part.register_forward_hook(note) for part in module.modules() if isinstance(part, WEIGHED)]
    try:
        with _batch_statistics(module), torch.enable_grad():
            loss = F.cross_entropy(module(x), y)
            slopes = torch.autograd.grad(loss, outputs, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()
    felt = [
        (out.detach() * slope).sum(around) if around else out.detach() * slope
        for out, slope, around in zip(outputs, slopes, places, strict=True)
        if slope is not None
    ]
    return sum(float(one.square().mean(0).sum() / 2) for one in felt)


def jacobian_covariance(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mellor et al. 2021 (first version): how unlike the rows' gradients with respect to the input are.

    -sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of their correlations, k = 1e-5.
    """
    inputs = x.clone().requires_grad_(True)
    with _batch_statistics(module), torch.enable_grad():
        (slope,) = torch.autograd.grad(module(inputs).sum(), inputs)
    correlations = torch.corrcoef(slope.flatten(1).double())
    if not torch.isfinite(correlations).all():
        return -np.inf
    v = torch.linalg.eigvalsh(correlations).clamp_min(0) + 1e-5
    return -float((v.log() + 1 / v).sum())


def zen(module: nn.Module, x: Tensor, y: Tensor) -> float:
    """Lin et al. 2021: the log of how much the last features before pooling move with Gaussian inputs and Gaussian
    weights, norms' own scale put back in. Features: what goes into the last pooling, or the output."""
    generator = torch.Generator().manual_seed(0)
    module = copy.deepcopy(module)
    with torch.no_grad():
        for weight in _weights(module):
            weight.copy_(torch.randn(weight.shape, generator=generator))
    first, step = (torch.randn(x.shape, generator=generator) for _ in range(2))
    scales: list[float] = []

    def note(part: nn.Module, given: tuple[Tensor, ...]) -> None:
        scales.append(float(given[0].detach().var(dim=(0, *range(2, given[0].dim()))).mean().clamp_min(1e-12).sqrt()))

    features: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        features.append(given[0].detach())

    pools = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    with _batch_statistics(module), _hooked(module, pools, keep), torch.no_grad():
        with _hooked(module, (nn.BatchNorm2d, nn.BatchNorm1d), note):
            here = module(first)
        there = module(first + ZEN_STEP * step)
    if len(features) == 2:
        here, there = features
    moved = float((here - there).abs().flatten(1).sum(1).mean())
    return float(np.log(max(moved, 1e-30)) + np.sum(np.log(scales))) if scales else float(np.log(max(moved, 1e-30)))


LABELLED = ("fisher", "gradient_norm", "grasp", "snip")  # that need class numbers
SCORES: Mapping[str, Score] = {
    "fisher": fisher,
    "gradient_norm": gradient_norm,
    "grasp": grasp,
    "jacobian_covariance": jacobian_covariance,
    "macs": macs,
    "naswot": naswot,
    "parameters": parameters,
    "snip": snip,
    "synflow": synflow,
    "zen": zen,
}


def _gradients(module: nn.Module, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Weights of convolutions and linear maps, with the gradient of the loss by them."""
    weights = _weights(module)
    with _batch_statistics(module), torch.enable_grad():
        found = torch.autograd.grad(F.cross_entropy(module(x), y), weights, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(weights, found, strict=True) if g is not None]


def _weights(module: nn.Module) -> list[Tensor]:
    return [part.weight for part in module.modules() if isinstance(part, WEIGHED)]


@contextmanager
def _batch_statistics(module: nn.Module) -> Iterator[None]:
    """Norms take the batch's own statistics and keep nothing of it; all else runs as it is served."""
    modes = [(part, part.training) for part in module.modules()]
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    momenta = [part.momentum for part in norms]
    counts = [None if part.num_batches_tracked is None else part.num_batches_tracked.clone() for part in norms]
    module.eval()
    for part in norms:
        part.train()
        part.momentum = 0.0
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode
        for part, momentum, seen in zip(norms, momenta, counts, strict=True):
            part.momentum = momentum
            if seen is not None and part.num_batches_tracked is not None:
                part.num_batches_tracked.copy_(seen)


@contextmanager
def _without_norms(module: nn.Module) -> Iterator[None]:
    """Within, norms hand on what they get."""
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, NORMS)
    ]
    try:
        for parent, name, _ in found:
            setattr(parent, name, nn.Identity())
        yield
    finally:
        for parent, name, child in found:
            setattr(parent, name, child)


@contextmanager
def _hooked(module: nn.Module, kinds: tuple[type[nn.Module], ...], note: Callable[..., None]) -> Iterator[None]:
    """`note` before each of these modules runs."""
    hooks = [part.register_forward_pre_hook(note) for part in module.modules() if isinstance(part, kinds)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
