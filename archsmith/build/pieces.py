"""The modules that networks are built from, by the words that a space uses for them.

Each is a function of what comes in and of its options. Pictures are (B, C, H, W), sequences (B, L, C), vectors (B, C).
A width may be told as one of the input's: "in", "in*4". What tells padding from text has `masked` and takes a mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from torch import nn

from archsmith.build import layers
from archsmith.build.signal import Signal

Width = int | str


def width(told: Width, signal: Signal) -> int:
    """A width in channels.

    >>> width("in*4", Signal((128, 64))), width("in", Signal((3, 8, 8))), width(7, Signal((3,)))
    (256, 3, 7)
    """
    if isinstance(told, str):
        base, _, factor = told.partition("*")
        if base != "in":
            raise ValueError(f'a width is a number, "in" or "in*4", not {told!r}')
        told = round(signal.channels * float(factor or 1))
    if told < 1:
        raise ValueError(f"a width is at least 1, not {told}")
    return int(told)


def convolution(
    signal: Signal,
    out: Width,
    kernel: int = 3,
    stride: int = 1,
    dilation: int = 1,
    groups: Width = 1,
    bias: bool = False,
    causal: bool = False,
) -> nn.Module:
    """A convolution of a picture or a sequence, padded so that stride alone changes the size."""
    inside, outside = signal.channels, width(out, signal)
    shared = width(groups, signal)
    if kernel < 1 or (kernel % 2 == 0 and len(signal.shape) == 3):
        raise ValueError(
            f"the kernel of a picture's convolution is odd, so that stride alone changes the size: {kernel}"
        )
    if len(signal.shape) == 3:
        return nn.Conv2d(inside, outside, kernel, stride, dilation * (kernel // 2), dilation, shared, bias)
    sequence(signal)
    return layers.Sequenced(inside, outside, kernel, stride, dilation, shared, bias, causal)


def depthwise(signal: Signal, kernel: int = 3, stride: int = 1, dilation: int = 1, causal: bool = False) -> nn.Module:
    """A convolution of each channel by itself."""
    return convolution(signal, "in", kernel, stride, dilation, "in", causal=causal)


def separable(signal: Signal, out: Width, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    """A depthwise convolution, then one over the channels (Chollet 2017)."""
    first = depthwise(signal, kernel, stride, dilation)
    return nn.Sequential(first, convolution(signal, out, 1))


def transposed(signal: Signal, out: Width, kernel: int = 2, stride: int = 2) -> nn.Module:
    """A transposed convolution of a picture or a series."""
    if len(signal.shape) == 3:
        return nn.ConvTranspose2d(signal.channels, width(out, signal), kernel, stride, bias=False)
    unpadded(signal)
    return layers.Turned(nn.ConvTranspose1d(signal.channels, width(out, signal), kernel, stride, bias=False))


def max_pool(signal: Signal, kernel: int = 3, stride: int = 1) -> nn.Module:
    """The largest of each window of a picture or a series; an even one may reach past the edge, as in `avg_pool`."""
    even = kernel % 2 == 0
    told: tuple[int, int, int] = (kernel, stride, 0 if even else kernel // 2)
    if len(signal.shape) == 3:
        return nn.MaxPool2d(*told, ceil_mode=even)
    unpadded(signal)
    return layers.Turned(nn.MaxPool1d(*told, ceil_mode=even))


def avg_pool(signal: Signal, kernel: int = 3, stride: int = 1) -> nn.Module:
    """The mean of each window of a picture or a series, padding not counted. An even window that reaches past the edge
    has the mean of what is there, so that sides that do not halve evenly come out as those of a convolution of this
    stride."""
    even = kernel % 2 == 0
    told: tuple[int, int, int] = (kernel, stride, 0 if even else kernel // 2)
    if len(signal.shape) == 3:
        return nn.AvgPool2d(*told, ceil_mode=even, count_include_pad=False)
    unpadded(signal)
    return layers.Turned(nn.AvgPool1d(*told, ceil_mode=even, count_include_pad=False))


def linear(signal: Signal, out: Width, bias: bool = True) -> nn.Module:
    """A linear map of the last dimension."""
    if len(signal.shape) == 3:
        raise ValueError("a linear map is of a vector or a sequence: put flatten or mean before it")
    return nn.Linear(signal.channels, width(out, signal), bias)


def batch_norm(signal: Signal, affine: bool = True) -> nn.Module:
    """Batch normalisation over the channels (Ioffe & Szegedy 2015)."""
    if len(signal.shape) == 2:
        return layers.Turned(nn.BatchNorm1d(signal.channels, affine=affine))
    kind = nn.BatchNorm2d if len(signal.shape) == 3 else nn.BatchNorm1d
    return kind(signal.channels, affine=affine)


def layer_norm(signal: Signal) -> nn.Module:
    """Layer normalisation over the channels of a sequence or vector; of a picture over all channels of all places."""
    return nn.GroupNorm(1, signal.channels) if len(signal.shape) == 3 else nn.LayerNorm(signal.channels)


def group_norm(signal: Signal, groups: int = 8) -> nn.Module:
    """Normalisation over groups of a picture's channels (Wu & He 2018)."""
    picture(signal)
    return nn.GroupNorm(groups, signal.channels)


def rms_norm(signal: Signal) -> nn.Module:
    """Root-mean-square normalisation over the channels (Zhang & Sennrich 2019)."""
    return nn.RMSNorm(signal.channels)


def embedding(signal: Signal, rows: int, out: int) -> nn.Module:
    """A vector for each token; token 0 is padding."""
    if not signal.tokens:
        raise ValueError("an embedding reads tokens")
    return nn.Embedding(rows, out, padding_idx=0)


def ngrams(signal: Signal, rows: int, out: int, lengths: Sequence[int] = (2,)) -> nn.Module:
    """A vector for each pair, triple ... of tokens, hashed into a table of so many rows."""
    if not signal.tokens:
        raise ValueError("n-grams are of tokens")
    if not lengths or min(lengths) < 2:
        raise ValueError(f"n-grams have two tokens or more: {list(lengths)}")
    return layers.NGrams(_hashed(rows), out, tuple(dict.fromkeys(lengths)))


def bag(signal: Signal, rows: int, out: int, longest: int = 3) -> nn.Module:
    """A text as the sum of a vector for each token and run of tokens in it, weighted as in TF-IDF and hashed into a
    table of so many rows."""
    if not signal.tokens:
        raise ValueError("a bag is of tokens")
    if longest < 1:
        raise ValueError(f"a bag is of runs of one token or more: {longest}")
    return layers.Bag(_hashed(rows), out, longest)


def _hashed(rows: int) -> int:
    """The rows of a table that is hashed into, if it can be."""
    if not (0 < rows <= layers.NARROW or (rows <= layers.MOST_ROWS and rows % layers.NARROW == 0)):
        law = f"1 to {layers.NARROW:,} rows, or a multiple of that up to {layers.MOST_ROWS:,}"
        raise ValueError(f"a table that is hashed into has {law}: {rows}")
    return rows


def positions(signal: Signal) -> nn.Module:
    """A learnt vector for each place of a sequence, added."""
    sequence(signal)
    return layers.Positions(*signal.shape)


def queries(signal: Signal, rows: int, out: Width = "in") -> nn.Module:
    """So many learnt vectors, whatever comes in: what a decoder begins with (Carion et al. 2020)."""
    if rows < 1:
        raise ValueError(f"there is at least one query: {rows}")
    return layers.Queries(rows, width(out, signal))


def patches(signal: Signal, size: int, out: int) -> nn.Module:
    """A picture cut into squares, each a vector of a sequence (Dosovitskiy et al. 2021)."""
    picture(signal)
    return layers.Patches(signal.channels, out, size)


def recurrent(kind: str) -> Callable[..., nn.Module]:
    """LSTM or GRU over a sequence, in one direction or both."""

    def make(signal: Signal, out: Width, both: bool = False, depth: int = 1) -> nn.Module:
        sequence(signal)
        return layers.Recurrent(kind, signal.channels, width(out, signal), both, depth)

    return make


def attention(signal: Signal, heads: int, head: int = 0, causal: bool = False) -> nn.Module:
    """Self-attention over a sequence (Vaswani et al. 2017); `head`: width of one, by default what the channels give."""
    sequence(signal)
    if heads < 1 or head < 0:
        raise ValueError(f"attention has at least one head: {heads}, of width {head}")
    if not head and signal.channels % heads:
        raise ValueError(f"{signal.channels} channels cannot be shared by {heads} heads: give the width of one as head")
    return layers.Attention(signal.channels, heads, head or signal.channels // heads, causal)


def attentive(signal: Signal) -> nn.Module:
    """A sequence's mean weighted by what a linear map says of each place (Yang et al. 2016)."""
    sequence(signal)
    return layers.Attentive(signal.channels)


def squeeze_excite(signal: Signal, hidden: Width = "in*0.25") -> nn.Module:
    """Channels scaled by what all places together say (Hu et al. 2018)."""
    picture(signal)
    return layers.SqueezeExcite(signal.channels, max(1, width(hidden, signal)))


def resize(signal: Signal, size: int = 0, share: float = 0.0) -> nn.Module:
    """A picture of another height and width: both `size`, or each a share of what it was."""
    picture(signal)
    if (size > 0) == (share > 0) or min(size, share) < 0:
        raise ValueError(f"a picture gets a size or a share of its own, above 0: {size}, {share}")
    height, width = (size, size) if size else (max(1, round(share * side)) for side in signal.around)
    if (height, width) == signal.around:
        return nn.Identity()
    return nn.Upsample(size=(height, width), mode="bilinear", align_corners=False)


def resample(signal: Signal, out: Width) -> nn.Module:
    """A picture of half the size: two strided maps of 1x1, one of them a place further (DARTS, factorised reduce)."""
    picture(signal)
    return layers.FactorisedReduce(signal.channels, width(out, signal))


def project(signal: Signal, out: int, around: list[int]) -> nn.Module:
    """The linear map that a residual needs where its shape changes."""
    if len(signal.shape) == 3:
        stride = -(-signal.shape[1] // around[0])
        return nn.Sequential(nn.Conv2d(signal.channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    if list(signal.around) != around:
        raise ValueError(f"a residual cannot change {signal.around} to {tuple(around)}")
    return nn.Linear(signal.channels, out)


def pooled(how: str) -> Callable[[Signal], nn.Module]:
    """All places of a picture or a sequence at once: their mean, the largest, the last."""

    def make(signal: Signal) -> nn.Module:
        if len(signal.shape) == 3:
            if how == "last":
                raise ValueError("a picture has no last place")
            pool = nn.AdaptiveAvgPool2d(1) if how == "mean" else nn.AdaptiveMaxPool2d(1)
            return nn.Sequential(pool, nn.Flatten())
        sequence(signal)
        return layers.Pooled(how)

    return make


def picture(signal: Signal) -> None:
    """Raise where it is none."""
    if len(signal.shape) != 3:
        raise ValueError("it is for pictures (channels, height, width)")


def sequence(signal: Signal) -> None:
    """Raise where it is none."""
    if len(signal.shape) != 2:
        raise ValueError("it is for sequences (length, channels)")


def unpadded(signal: Signal) -> None:
    """Raise where it is no sequence, or one of which some places may be padding."""
    sequence(signal)
    if signal.masked:
        raise ValueError("its windows cannot tell padding from text: take a conv")


def first(signal: Signal, out: int) -> nn.Module:
    """The first channels of a picture."""
    picture(signal)
    if out > signal.channels:
        raise ValueError(f"there are {signal.channels} channels, not {out}")
    return nn.Identity() if out == signal.channels else layers.First(out)


def plain(kind: type[nn.Module], **options: Any) -> Callable[[Signal], nn.Module]:
    """A module that asks nothing of its input."""
    return lambda signal: kind(**options)


KINDS: Mapping[str, Callable[..., nn.Module]] = {
    "attention": attention,
    "attentive": attentive,
    "avg_pool": avg_pool,
    "bag": bag,
    "batch_norm": batch_norm,
    "conv": convolution,
    "depthwise": depthwise,
    "dropout": lambda signal, p=0.1: nn.Dropout(p),
    "embedding": embedding,
    "first": first,
    "flatten": plain(nn.Flatten),
    "gelu": plain(nn.GELU),
    "group_norm": group_norm,
    "gru": recurrent("gru"),
    "hardswish": plain(nn.Hardswish),
    "last": pooled("last"),
    "layer_norm": layer_norm,
    "linear": linear,
    "lstm": recurrent("lstm"),
    "max": pooled("max"),
    "max_pool": max_pool,
    "mean": pooled("mean"),
    "ngrams": ngrams,
    "patches": patches,
    "positions": positions,
    "project": project,
    "queries": queries,
    "relu": plain(nn.ReLU),
    "relu6": plain(nn.ReLU6),
    "resample": resample,
    "resize": resize,
    "rms_norm": rms_norm,
    "separable": separable,
    "sigmoid": plain(nn.Sigmoid),
    "silu": plain(nn.SiLU),
    "skip": plain(nn.Identity),
    "squeeze_excite": squeeze_excite,
    "tanh": plain(nn.Tanh),
    "transposed": transposed,
    "zero": plain(layers.Zero),
}


@cache
def _takes(kind: str) -> inspect.Signature:
    return inspect.signature(KINDS[kind])


def arguments(kind: str, options: Mapping[str, Any], signal: Signal) -> dict[str, Any]:
    """All options of a module, with those that were not told.

    >>> arguments("squeeze_excite", {}, Signal((8, 4, 4)))
    {'hidden': 'in*0.25'}
    """
    bound = _takes(kind).bind(signal, **options)
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[1:])


def made(kind: str, options: Mapping[str, Any], signal: Signal) -> nn.Module:
    """The module. Raises `ValueError` or `TypeError` for options that it does not take or an input that is none of its.

    >>> made("conv", {"out": "in*2", "kernel": 3, "stride": 2}, Signal((3, 32, 32)))
    Conv2d(3, 6, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), bias=False)
    """
    takes = _takes(kind)
    try:
        takes.bind(signal, **options)
    except TypeError as error:
        known = ", ".join(list(takes.parameters)[1:]) or "no options"
        raise ValueError(f"{kind} takes {known}: {error}") from error
    if signal.tokens and kind not in ("bag", "embedding", "ngrams"):
        raise ValueError("tokens must first go through an embedding")
    return KINDS[kind](signal, **options)
