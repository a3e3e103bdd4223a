"""The zoo's graphs of images, signals and volumes: convolutions of every kind, and how they are joined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from zoo import Make, linear, zoo

IMAGE = (2, 3, 8, 8)


def conv(inside: int, outside: int, kernel: int = 3, **options: Any) -> Make:
    """Makes a convolution that keeps the size."""
    return lambda: nn.Conv2d(inside, outside, kernel, padding=kernel // 2, **options)


def mean(images: Tensor) -> Tensor:
    """Global average pooling."""
    return images.mean((2, 3))


@zoo("channels 6 8", IMAGE, a=conv(3, 6), b=conv(6, 8), n=lambda: nn.BatchNorm2d(8), d=linear(8, 4))
def convolutions(m, x):
    return m.d(mean(m.n(m.b(m.a(x).relu())).relu()))


@zoo("residual 6 channels 8", IMAGE, e=conv(3, 6), a=conv(6, 8), b=conv(8, 6), d=linear(6, 4))
def residual_stage(m, x):
    hidden = m.e(x)
    return m.d(mean(hidden + m.b(m.a(hidden).relu())))


@zoo("channels 12 5", IMAGE, a=conv(3, 12, 1), w=conv(12, 12, groups=12), b=conv(12, 5, 1), d=linear(5, 4))
def depthwise_between(m, x):
    return m.d(mean(m.b(m.w(m.a(x).relu()))))


@zoo("channels 6", IMAGE, a=conv(3, 6, 1), w=conv(6, 12, groups=6), d=linear(12, 4))
def filters_side_by_side(m, x):
    return m.d(mean(m.w(m.a(x).relu())))


@zoo("channels 2 4 6 5", IMAGE, a=conv(3, 8), g=conv(8, 12, groups=2), b=conv(12, 5, 1), d=linear(5, 4))
def groups(m, x):
    return m.d(mean(m.b(m.g(m.a(x).relu()).relu())))


@zoo("channels 6 8", IMAGE, a=conv(3, 6), u=lambda: nn.ConvTranspose2d(6, 8, 2, stride=2), d=linear(8, 4))
def transposed(m, x):
    return m.d(mean(m.u(m.a(x).relu()).relu()))


@zoo("channels 6", IMAGE, a=conv(3, 6), u=lambda: nn.ConvTranspose2d(6, 6, 2, stride=2, groups=6), d=linear(6, 4))
def transposed_depthwise(m, x):
    return m.d(mean(m.u(m.a(x).relu()).relu()))


@zoo("channels 6 3", IMAGE, a=conv(3, 6), s=conv(6, 3, 1), t=conv(3, 6, 1), d=linear(6, 4))
def squeeze_and_excite(m, x):
    hidden = m.a(x).relu()
    gate = m.t(m.s(hidden.mean((2, 3), keepdim=True)).tanh()).sigmoid()
    return m.d(mean(hidden * gate))


@zoo("channels 4 5 6", IMAGE, a=conv(3, 4), b=conv(4, 5), c=conv(9, 6), d=linear(15, 4))
def densely_connected(m, x):
    first = m.a(x)
    second = torch.cat([first, m.b(first).relu()], 1)
    return m.d(mean(torch.cat([second, m.c(second).relu()], 1)))


@zoo(
    "channels 4 6 5",
    IMAGE,
    a=conv(3, 4),
    b=conv(4, 6),
    u=lambda: nn.ConvTranspose2d(6, 5, 2, stride=2),
    d=conv(9, 2, 1),
)
def down_up_and_across(m, x):
    fine = m.a(x).relu()
    coarse = m.b(functional.max_pool2d(fine, 2)).relu()
    return m.d(torch.cat([fine, m.u(coarse)], 1))


@zoo("channels 4 6", IMAGE, a=conv(3, 4), b=conv(4, 6), d=conv(10, 2, 1))
def resized_and_joined(m, x):
    fine = m.a(x)
    coarse = m.b(functional.avg_pool2d(fine, 2))
    return m.d(torch.cat([fine, functional.interpolate(coarse, scale_factor=2)], 1))


@zoo("channels 4", IMAGE, a=conv(3, 4), d=linear(16, 4))
def flattened(m, x):
    return m.d(functional.max_pool2d(m.a(x).relu(), 4).flatten(1))


@zoo("channels 5", IMAGE, a=conv(3, 20), d=conv(5, 2, 1))
def pixels_from_channels(m, x):
    return m.d(functional.pixel_shuffle(m.a(x), 2))


@zoo("channels 5", IMAGE, a=conv(3, 5), d=linear(20, 4))
def patches_merged(m, x):
    hidden = m.a(x)
    return m.d(torch.cat([hidden[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1).permute(0, 2, 3, 1))


@zoo("channels 2", IMAGE, a=conv(3, 8), n=lambda: nn.GroupNorm(2, 8), d=linear(8, 4))
def group_norm(m, x):
    return m.d(mean(m.n(m.a(x))))


@zoo("channels 6 8", (2, 3, 12), a=lambda: nn.Conv1d(3, 6, 3), b=lambda: nn.Conv1d(6, 8, 3, dilation=2), d=linear(8, 4))
def causal_and_dilated(m, x):
    hidden = m.a(functional.pad(x, (2, 0))).relu()
    return m.d(m.b(functional.pad(hidden, (4, 0))).relu().mean(-1))


@zoo("channels 6", (2, 1, 4, 4, 4), a=lambda: nn.Conv3d(1, 6, 3), b=lambda: nn.Conv3d(6, 4, 1))
def volumes(m, x):
    return m.b(m.a(x).relu()).mean((2, 3, 4))
