"""Elastic weights: a smaller module computes what one built by hand from slices of the whole computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.build import Declared, Signal
from archsmith.build.plan import Piece, planned
from archsmith.build.segments import Segments
from archsmith.build.spaces.images import enas_macro
from archsmith.evaluate.elastic import KINDS, Elastic, Extent, Family, extent_of, view
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.weight_shared import Shared
from archsmith.space import Architecture

P = Mapping[str, Tensor]
Reference = Callable[[P, Tensor], Tensor]


def picture(channels: int) -> Signal:
    return Signal((channels, 6, 6))


def series(channels: int) -> Signal:
    return Signal((5, channels))


def attention(p: P, x: Tensor) -> Tensor:
    """3 heads of 4 on 8 channels; of it 2 heads of 3 on 6."""
    rows = torch.tensor([[part * 12 + head * 4 + i for i in range(3)] for part in range(3) for head in range(2)])
    w, b = p["qkv.weight"][rows.ravel()][:, :6], p["qkv.bias"][rows.ravel()]
    q, k, v = (each.view(2, 5, 2, 3).transpose(1, 2) for each in F.linear(x, w, b).chunk(3, -1))
    mixed = ((q @ k.transpose(-1, -2)) / 3**0.5).softmax(-1) @ v
    columns = torch.tensor([0, 1, 2, 4, 5, 6])
    return F.linear(mixed.transpose(1, 2).reshape(2, 5, 6), p["out.weight"][:6][:, columns], p["out.bias"][:6])


def squeezed(p: P, x: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    hidden = F.conv2d(mean, p["down.weight"][:2, :4], p["down.bias"][:2]).relu()
    return x * F.conv2d(hidden, p["up.weight"][:4, :2], p["up.bias"][:4]).sigmoid()


def attentive(p: P, x: Tensor) -> Tensor:
    return (F.linear(x, p["score.weight"][:, :4], p["score.bias"]).softmax(1) * x).sum(1)


def resampled(p: P, x: Tensor) -> Tensor:
    moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    return torch.cat(
        [F.conv2d(x, p["even.weight"][:2, :4], stride=2), F.conv2d(moved, p["odd.weight"][:3, :4], stride=2)], 1
    )


def normed(p: P, x: Tensor, *names: str) -> Tensor:
    """In training mode."""
    weight, bias = (p[name][: x.shape[1]] for name in (names or ("weight", "bias")))
    return F.batch_norm(x, None, None, weight, bias, training=True)


def grouped(p: P, x: Tensor) -> Tensor:
    """Two groups of 4 -> 6; of it two of 2 -> 3."""
    return F.conv2d(x, p["weight"][[0, 1, 2, 6, 7, 8], :2], padding=1, groups=2)


def separated(p: P, x: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(x, p["0.weight"][:4, :, 1:4, 1:4], padding=1, groups=4), p["1.weight"][:6, :4])


# (kind, of the whole: options and input, of the smaller one: options and input, by hand)
Case = tuple[str, Mapping[str, Any], Signal, Mapping[str, Any], Signal, Reference]
CASES: dict[str, Case] = {
    "conv": ("conv", {"out": 8, "kernel": 5}, picture(6), {"out": 5}, picture(4),
             lambda p, x: F.conv2d(x, p["weight"][:5, :4, 1:4, 1:4], padding=1)),
    "conv to a point": ("conv", {"out": 8, "kernel": 5}, picture(6), {"out": 8, "kernel": 1}, picture(6),
                        lambda p, x: F.conv2d(x, p["weight"][:, :, 2:3, 2:3])),
    "dilated, strided": (
        "conv", {"out": 8, "kernel": 5, "stride": 2, "dilation": 2, "bias": True}, picture(6),
        {"out": 5, "stride": 2, "dilation": 2, "bias": True}, picture(4),
        lambda p, x: F.conv2d(x, p["weight"][:5, :4, 1:4, 1:4], p["bias"][:5], stride=2, padding=2, dilation=2)),
    "grouped": ("conv", {"out": 12, "groups": 2}, picture(8), {"out": 6, "groups": 2}, picture(4), grouped),
    "grouped by channel": (
        "conv", {"out": "in*2", "groups": "in"}, picture(6), {"out": "in*2", "groups": "in"}, picture(4),
        lambda p, x: F.conv2d(x, p["weight"][:8], padding=1, groups=4)),
    "conv of a series": (
        "conv", {"out": 8, "kernel": 5}, series(6), {"out": 5, "kernel": 4}, series(4),  # of -2..2 the taps -1..2
        lambda p, x: F.conv1d(F.pad(x.mT, (1, 2)), p["conv.weight"][:5, :4, 1:5]).mT),
    "causal": (
        "conv", {"out": 8, "kernel": 5, "causal": True}, series(6), {"out": 5, "kernel": 2, "causal": True}, series(4),
        lambda p, x: F.conv1d(F.pad(x.mT, (1, 0)), p["conv.weight"][:5, :4, 3:]).mT),
    "depthwise": ("depthwise", {"kernel": 7}, picture(6), {"kernel": 3}, picture(4),
                  lambda p, x: F.conv2d(x, p["weight"][:4, :, 2:5, 2:5], padding=1, groups=4)),
    "separable": ("separable", {"out": 8, "kernel": 5}, picture(6), {"out": 6}, picture(4), separated),
    "transposed": ("transposed", {"out": 8}, picture(6), {"out": 5}, picture(4),
                   lambda p, x: F.conv_transpose2d(x, p["weight"][:4, :5], stride=2)),
    "transposed of a series": ("transposed", {"out": 8}, series(6), {"out": 5}, series(4),
                               lambda p, x: F.conv_transpose1d(x.mT, p["inner.weight"][:4, :5], stride=2).mT),
    "linear": ("linear", {"out": 8}, Signal((6,)), {"out": 5}, Signal((4,)),
               lambda p, x: F.linear(x, p["weight"][:5, :4], p["bias"][:5])),
    "batch_norm": ("batch_norm", {}, picture(6), {}, picture(4), normed),
    "batch_norm of a series": ("batch_norm", {}, series(6), {}, series(4),
                               lambda p, x: normed(p, x.mT, "inner.weight", "inner.bias").mT),
    "layer_norm": ("layer_norm", {}, series(6), {}, series(4),
                   lambda p, x: F.layer_norm(x, (4,), p["weight"][:4], p["bias"][:4])),
    "layer_norm of a picture": ("layer_norm", {}, picture(6), {}, picture(4),
                                lambda p, x: F.group_norm(x, 1, p["weight"][:4], p["bias"][:4])),
    "group_norm": ("group_norm", {"groups": 3}, picture(6), {"groups": 2}, picture(4),
                   lambda p, x: F.group_norm(x, 2, p["weight"][:4], p["bias"][:4])),
    "rms_norm": ("rms_norm", {}, series(6), {}, series(4), lambda p, x: F.rms_norm(x, (4,), p["weight"][:4])),
    "embedding": ("embedding", {"rows": 9, "out": 8}, Signal((5,), tokens=True), {"rows": 9, "out": 5},
                  Signal((5,), tokens=True), lambda p, x: F.embedding(x, p["weight"][:, :5], padding_idx=0)),
    "positions": ("positions", {}, series(6), {}, series(4), lambda p, x: x + p["table"][:, :4]),
    "patches": ("patches", {"size": 3, "out": 8}, picture(6), {"size": 3, "out": 5}, picture(4),
                lambda p, x: F.conv2d(x, p["conv.weight"][:5, :4], p["conv.bias"][:5], stride=3).flatten(2).mT),
    "attention": ("attention", {"heads": 3, "head": 4}, series(8), {"heads": 2}, series(6), attention),
    "attentive": ("attentive", {}, series(6), {}, series(4), attentive),
    "squeeze_excite": ("squeeze_excite", {"hidden": "in*0.5"}, picture(8), {"hidden": 2}, picture(4), squeezed),
    "project": ("project", {"out": 8, "around": [3, 3]}, picture(6), {"out": 5, "around": [3, 3]}, picture(4),
                lambda p, x: normed(p, F.conv2d(x, p["0.weight"][:5, :4], stride=2), "1.weight", "1.bias")),
    "project of a series": ("project", {"out": 8, "around": [5]}, series(6), {"out": 5, "around": [5]}, series(4),
                            lambda p, x: F.linear(x, p["weight"][:5, :4], p["bias"][:5])),
    "resample": ("resample", {"out": 8}, picture(6), {"out": 5}, picture(4), resampled),
}  # fmt: skip


def piece_of(kind: str, options: Mapping[str, Any], signal: Signal) -> Piece:
    found = planned({kind: dict(options)}, signal)
    assert isinstance(found, Piece)
    return found


def sliced(case: Case, gets: Segments | None = None, whole_gets: Segments | None = None) -> tuple[Any, Any, Piece]:
    """The whole, the view and the smaller piece."""
    kind, large, from_large, few, from_few, _ = case
    big, small = piece_of(kind, large, from_large), piece_of(kind, few, from_few)
    of_big = extent_of(big, whole_gets or ((1, big.gets.channels, 1),))
    of_small = extent_of(small, gets or ((1, small.gets.channels, 1),))
    assert of_big and of_small and json.dumps(of_big[0]) == json.dumps(of_small[0])
    family = Family(big, of_big[1], ()).joined(of_big[1]).joined(of_small[1])
    assert family.fitted(of_small[1]) == of_small[1]
    torch.manual_seed(0)
    whole = family.whole()
    for parameter in whole.parameters():  # norms begin as ones and zeros, of which any slice looks right
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)
    return whole, view(small, of_small[1], family, whole), small


def test_every_kind_that_is_sliced_has_a_case() -> None:
    assert {case[0] for case in CASES.values()} == set(KINDS)


@pytest.mark.parametrize("name", CASES)
def test_a_slice_computes_and_learns_what_one_built_by_hand_does(name: str) -> None:
    case = CASES[name]
    whole, small, piece = sliced(case)
    signal = piece.gets
    x = torch.randint(1, 9, (2, *signal.shape)) if signal.tokens else torch.randn(2, *signal.shape)
    out = small(x)
    expected = case[5](dict(whole.named_parameters()), x)
    assert out.shape == (2, *piece.gives.shape)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    weight = torch.randn(out.shape)
    parameters = {k: p for k, p in whole.named_parameters() if not k.startswith("kernel_")}
    mine = torch.autograd.grad((out * weight).sum(), list(parameters.values()), allow_unused=True)
    by_hand = torch.autograd.grad((expected * weight).sum(), list(parameters.values()), allow_unused=True)
    assert any(
        full.numel() > int(grad.count_nonzero()) > 0 for full, grad in zip(parameters.values(), mine, strict=True)
    )
    for own, other in zip(mine, by_hand, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)
        assert torch.equal(own != 0, other != 0) or int((own != 0).sum() - (other != 0).sum()) == 0


def test_kernels_come_out_of_one_another_by_matrices_that_are_learnt() -> None:
    large, five, three = ({"kernel": size} for size in (7, 5, 3))
    pieces = [piece_of("depthwise", each, picture(2)) for each in (large, five, three)]
    extents = [found[1] for piece in pieces if (found := extent_of(piece, ((1, 2, 1),)))]
    family = Family(pieces[0], extents[0], ())
    for extent in extents:
        family = family.joined(extent)
    whole = family.whole()
    torch.nn.init.normal_(whole.kernel_5)
    torch.nn.init.normal_(whole.kernel_3)
    x = torch.randn(2, 2, 6, 6)
    middle = (whole.weight[:, :, 1:6, 1:6].reshape(2, 1, 25) @ whole.kernel_5.T).view(2, 1, 5, 5)
    torch.testing.assert_close(view(pieces[1], extents[1], family, whole)(x), F.conv2d(x, middle, padding=2, groups=2))
    least = (middle[:, :, 1:4, 1:4].reshape(2, 1, 9) @ whole.kernel_3.T).view(2, 1, 3, 3)
    out = view(pieces[2], extents[2], family, whole)(x)
    torch.testing.assert_close(out, F.conv2d(x, least, padding=1, groups=2))
    out.sum().backward()
    assert whole.kernel_5.grad.count_nonzero() and whole.kernel_3.grad.count_nonzero()


def test_of_a_concatenation_each_segment_gives_its_first_channels() -> None:
    case: Case = ("linear", {"out": 8}, Signal((10,)), {"out": 5}, Signal((5,)), lambda p, x: x)
    whole, small, _ = sliced(case, ((1, 2, 1), (1, 3, 1)), ((1, 4, 1), (1, 6, 1)))
    x = torch.randn(2, 5)
    by_hand = F.linear(x, whole.weight[:5, [0, 1, 4, 5, 6]], whole.bias[:5])
    torch.testing.assert_close(small(x), by_hand)


@pytest.mark.parametrize(("small", "whole", "columns"), [
    (((1, 2, 3),), ((1, 4, 3),), [0, 1, 2, 3, 4, 5]),  # a picture's: channel by channel
    (((3, 2, 1),), ((3, 4, 1),), [0, 1, 4, 5, 8, 9]),  # a series': place by place
])  # fmt: skip
def test_of_what_was_flattened_each_channel_keeps_its_places(
    small: Segments, whole: Segments, columns: list[int]
) -> None:
    case: Case = ("linear", {"out": 3}, Signal((12,)), {"out": 3}, Signal((6,)), lambda p, x: x)
    full, sub, _ = sliced(case, small, whole)
    x = torch.randn(2, 6)
    torch.testing.assert_close(sub(x), F.linear(x, full.weight[:, columns], full.bias))


WIDTHS = Declared(
    {"width": [4, 8], "kernel": [1, 3, 5], "depth": [1, 2]},
    [
        {"conv": {"out": "$width", "kernel": "$kernel"}}, "batch_norm", "relu",
        {"repeat": "$depth", "name": "layer",
         "of": {"residual": [{"conv": {"out": "in", "kernel": "$kernel"}}, "batch_norm"]}},
        "mean", {"linear": {"out": "$classes"}},
    ],
)  # fmt: skip
SMALL = {"width": 4, "kernel": 3, "depth": 1, "layer0.kernel": 1}
LARGE = {"width": 8, "kernel": 5, "depth": 2, "layer0.kernel": 5, "layer1.kernel": 5}


def test_all_networks_are_inside_the_largest_one(ground: Ground) -> None:
    shared = Elastic(ground, WIDTHS)
    large = shared.network(ground.plan(WIDTHS, LARGE, prune=False))
    small = shared.network(ground.plan(WIDTHS, SMALL, prune=False))
    every, largest, smallest = ({id(p) for p in each.parameters()} for each in (shared, large, small))
    assert smallest < largest == every
    built = ground.module(ground.plan(WIDTHS, LARGE, prune=False), 0)
    matrices = sum(p.numel() for name, p in shared.named_parameters() if ".kernel_" in name)
    assert sum(p.numel() for p in shared.parameters()) - matrices == sum(p.numel() for p in built.parameters())
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in Shared(ground, WIDTHS).parameters())
    with torch.no_grad():
        before = small(torch.ones(2, 3, 8, 8))
        for p in large.parameters():
            p.mul_(1.5)
        assert not torch.allclose(before, small(torch.ones(2, 3, 8, 8)))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_shared_has_room_for_the_networks_of_all_rounds(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("archsmith.evaluate.weight_shared.COVERED", 3)
    many = {"a": list(range(1, 40)), "b": list(range(1, 40)), "kernel": [1, 3, 5, 7, 9]}
    network = [
        {"conv": {"out": "$a", "kernel": "$kernel"}}, {"conv": {"out": "$b"}}, "mean", {"linear": {"out": "$classes"}},
    ]  # fmt: skip
    space = Declared(many, network)
    shared = Elastic(ground, space, seed)
    wholes = {id(p) for p in shared.parameters()}
    points = [Architecture({"a": 39, "b": 39, "kernel": 9}), Architecture({"a": 39, "b": 1, "kernel": 1})]
    rng = np.random.default_rng([seed, 11])  # the draws that are covered
    for plan in [ground.plan(space, point, prune=False) for point in points] + [shared.drawn(rng)[1] for _ in range(6)]:
        asked = shared.network(plan)
        assert asked(torch.zeros(2, 3, 8, 8)).shape == (2, 2)
        assert {id(p) for p in asked.parameters()} <= wholes


def test_what_is_larger_than_all_that_was_trained_is_refused(ground: Ground) -> None:
    shared = Elastic(ground, WIDTHS)
    shared.restore(Elastic(ground, WIDTHS).state_dict())
    wider = Declared({"width": [4, 16], "kernel": [1, 3, 5], "depth": [1, 2]}, WIDTHS.network)
    with pytest.raises(ValueError, match="a layer that none of the networks had"):
        shared.network(ground.plan(wider, LARGE | {"width": 16}, prune=False))


def test_a_view_is_in_the_mode_of_the_weights_and_keeps_statistics_of_its_own(ground: Ground) -> None:
    shared = Elastic(ground, WIDTHS)
    plans = [ground.plan(WIDTHS, point, prune=False) for point in (SMALL, LARGE)]
    shared.train()
    small, large = (shared.network(plan) for plan in plans)
    assert all(part.training for part in small.modules() if isinstance(part, nn.BatchNorm2d))
    before = {k: v.clone() for k, v in shared.state_dict().items()}
    small(torch.randn(8, 3, 8, 8))
    assert all(torch.equal(v, before[k]) for k, v in shared.state_dict().items())
    large(torch.randn(8, 3, 8, 8))
    assert not all(torch.equal(v, before[k]) for k, v in shared.state_dict().items())
    shared.eval()
    norms = [part for part in shared.network(plans[0]).modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == 2 and not any(norm.training for norm in norms)


def test_what_cannot_be_sliced_keeps_modules_of_its_own(ground: Ground) -> None:
    network = [
        {"patches": {"size": 4, "out": 4}}, {"lstm": {"out": "$width"}}, "mean", {"linear": {"out": "$classes"}},
    ]  # fmt: skip
    declared = Declared({"width": [3, 5]}, network)
    shared = Elastic(ground, declared)
    plans = [ground.plan(declared, {"width": width}, prune=False) for width in (3, 5)]
    one, two = ({id(p) for p in shared.network(plan).parameters()} for plan in plans)
    assert len(one & two) == 4 and len(one - two) == len(two - one) == 4
    for plan in plans:
        assert shared.network(plan)(torch.zeros(2, 3, 8, 8)).shape == (2, 2)


def test_groups_that_do_not_divide_what_has_room_for_all_share_where_they_are_the_same(ground: Ground) -> None:
    network = [
        {"conv": {"out": "$a"}}, {"conv": {"out": "$b", "groups": "in"}}, "mean", {"linear": {"out": "$classes"}},
    ]  # fmt: skip
    declared = Declared({"a": [5, 4], "b": [5, 8]}, network)
    shared = Elastic(ground, declared)
    assert list(shared.families.values()).count(None) == 1
    for seed in range(8):
        plan = shared.drawn(np.random.default_rng(seed))[1]
        assert shared.network(plan)(torch.zeros(2, 3, 8, 8)).shape == (2, 2)


def test_where_segments_differ_from_network_to_network_channels_are_one(ground: Ground) -> None:
    blueprint = enas_macro(layers=4, channels=4)
    elastic, shared = (sum(p.numel() for p in kind(ground, blueprint).parameters()) for kind in (Elastic, Shared))
    assert elastic == shared
    merged = Extent(((1, 2, 1), (1, 3, 1)), {}) | Extent(((1, 4, 1),), {})
    assert merged == Extent(((1, 5, 1),), {})
