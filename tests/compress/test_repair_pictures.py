"""Repair of convolutions, through the norms over batches behind them, and the statistics of those norms."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.compress.norms import recalibrate
from archsmith.compress.repair import exit_paths, repair
from archsmith.evaluate.trained import kept_stream
from archsmith.model import examine, realise

torch.set_num_threads(1)


class Pictures(nn.Module):
    """x + down(up(x)) of pictures, with or without a norm over batches before the sum."""

    def __init__(self, bias: bool, norm: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.up = nn.Conv2d(4, 10, 3, padding=1)
        self.down = nn.Conv2d(10, 4, 3, padding=2, dilation=2, bias=bias)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        with torch.no_grad():
            for tensor in self.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(torch.randn(tensor.shape, generator=generator).abs() + 0.2)
            for conv in (self.up, self.down):
                conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.down(self.up(x).relu()))


@pytest.mark.parametrize(("bias", "norm"), [(True, False), (False, False), (False, True), (True, True)])
def test_a_convolution_is_refitted_through_the_norm_behind_it(bias: bool, norm: bool) -> None:
    original, small = Pictures(bias, norm).eval(), Pictures(bias, norm).eval()
    with torch.no_grad():
        small.up.weight[4:] = 0
        small.up.bias[4:] = 0  # type: ignore[index]
    batches = [{"x": torch.randn(12, 4, 7, 7, generator=torch.Generator().manual_seed(n))} for n in range(3)]

    def error() -> float:
        with torch.no_grad():
            return sum(float((original(**inputs) - small(**inputs)).square().sum()) for inputs in batches)

    before = error()
    left = repair(original, small, [(original.down, small.down)], batches)
    assert left[0] < 0.8 and error() == pytest.approx(left[0] * before, rel=1e-3)
    if norm:  # training, which takes the means of its batch, begins where eval ends
        x = torch.cat([inputs["x"] for inputs in batches])
        with torch.no_grad():
            still = small(x)
            small.train()
            torch.testing.assert_close(small(x), still, rtol=1e-3, atol=1e-3)


def test_some_positions_of_large_pictures_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 12 pictures of 20 x 20 has 4800; on a sixth of them the refit is nearly as good."""
    left = []
    for most in (10**9, 800):
        monkeypatch.setattr("archsmith.compress.repair.POSITIONS", most)
        original, small = Pictures(True, True).eval(), Pictures(True, True).eval()
        with torch.no_grad():
            small.up.weight[4:] = 0
        batches = [{"x": torch.randn(12, 4, 20, 20, generator=torch.Generator().manual_seed(n))} for n in range(2)]
        with torch.no_grad():
            apart = [float((original(**inputs) - small(**inputs)).square().mean()) for inputs in batches]
            repair(original, small, [(original.down, small.down)], batches)
            left.append(sum(float((original(**b) - small(**b)).square().mean()) for b in batches) / sum(apart))
    assert left[0] < left[1] < 1.1 * left[0] < 0.9


def test_a_channel_that_a_norm_takes_to_nought_is_left_alone() -> None:
    original, small = Pictures(False, True).eval(), Pictures(False, True).eval()
    with torch.no_grad():
        for model in (original, small):
            model.norm.weight[1] = 0  # type: ignore[index,operator]
        small.up.weight[4:] = 0
    before = small.down.weight[1].clone()
    repair(original, small, [(original.down, small.down)], [{"x": torch.randn(12, 4, 7, 7)}])
    assert torch.equal(small.down.weight[1], before) and all(torch.isfinite(p).all() for p in small.parameters())


@pytest.mark.parametrize("narrow", [False, True])
def test_residual_blocks_of_convolutions_come_nearer(narrow: bool) -> None:
    """A ResNet of transformers with half of its inner channels: its exits have norms behind them."""
    import transformers

    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 24], depths=[3, 3], num_labels=3, layer_type="basic"
    )
    model: nn.Module = transformers.ResNetForImageClassification(config)
    batches = [{"pixel_values": torch.randn(16, 3, 32, 32)} for _ in range(4)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.3 * torch.randn(parameter.shape))
    recalibrate(model.eval(), batches)
    anatomy = examine(model, {"pixel_values": batches[0]["pixel_values"][:2]}, np.random.default_rng(0))
    architecture = {n: a.size // 2 for n, a in anatomy.axes.items() if a.kind == "channels" and ".layers." in n}
    if narrow:
        architecture |= {n: a.size * 3 // 4 for n, a in anatomy.axes.items() if a.kind == "residual"}
        assert len({a.size for a in anatomy.axes.values() if a.kind == "residual"}) == 2
    small = copy.deepcopy(realise(model, anatomy, architecture))
    exits = exit_paths(model, anatomy)
    streams = {path: kept_stream(anatomy, architecture, path, exits) for path in exits}
    kept = {model.get_submodule(path): stream for path, stream in streams.items() if stream is not None}
    assert bool(kept) == narrow
    pairs = [(model.get_submodule(path), small.get_submodule(path)) for path in exit_paths(model, anatomy)]

    def apart() -> float:
        with torch.no_grad():
            return float((model(**batches[3]).logits - small(**batches[3]).logits).square().mean())

    before = apart()
    left = repair(model, small, pairs, batches[:3], kept)
    assert len(left) >= 4 and max(left) < 1
    assert apart() < 0.7 * before


class InPlace(nn.Module):
    """Two blocks as torchvision writes them: the sum and the activation behind it in place."""

    def __init__(self, activated: bool = False, tokens: bool = False, statistics: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.ups = nn.ModuleList(nn.Conv2d(4, 8, 3, padding=1) for _ in range(2))
        self.downs = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, track_running_stats=statistics) for _ in range(2))
        self.activated, self.tokens = activated, tokens
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        for up, down, norm in zip(self.ups, self.downs, self.norms, strict=True):
            inner = down(up(x).relu())
            if self.tokens:
                x = (x.flatten(2).transpose(1, 2) + inner.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
                continue
            inner = norm(inner)
            if self.activated:
                nn.functional.silu(inner, inplace=True)
                x = x + inner
            else:
                inner += x
                x = nn.functional.relu(inner, inplace=True)
        return x


@pytest.mark.parametrize("kind", [{}, {"activated": True}, {"tokens": True}, {"statistics": False}])
def test_what_is_whole_stays_what_it_is_whatever_is_done_in_place(kind: dict[str, bool]) -> None:
    original, same = InPlace(**kind).eval(), InPlace(**kind).eval()
    batches = [{"x": torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(n))} for n in range(2)]
    left = repair(original, same, list(zip(original.downs, same.downs, strict=True)), batches)
    with torch.no_grad():
        torch.testing.assert_close(same(**batches[0]), original(**batches[0]), rtol=1e-3, atol=1e-3)
    assert len(left) == (0 if {"activated", "tokens", "statistics"} & set(kind) else 2)


def test_blocks_that_work_in_place_are_repaired() -> None:
    original, small = InPlace().eval(), InPlace().eval()
    batches = [{"x": torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(n))} for n in range(4)]
    with torch.no_grad():
        recalibrate(original, batches)
        small.load_state_dict(original.state_dict())
        for up in small.ups:
            up.weight[5:] = 0
            up.bias[5:] = 0

        def apart() -> float:
            return float((original(**batches[3]) - small(**batches[3])).square().mean())

        before = apart()
        repair(original, small, list(zip(original.downs, small.downs, strict=True)), batches[:3])
        assert apart() < 0.9 * before


class Folded(nn.Module):
    """Two convolutions, the second with a norm over batches behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.second(self.first(x).relu()))
        return out


def test_norms_over_batches_are_calibrated_anew() -> None:
    """Half of the channels before a norm at zero: its running mean is off until it is taken again."""
    torch.manual_seed(0)
    model = Folded().eval()
    batches = [{"x": torch.randn(16, 3, 8, 8)} for _ in range(8)]
    assert recalibrate(model, batches) == 1
    with torch.no_grad():
        model.first.weight[4:] = 0
        model.first.bias[4:] = 0  # type: ignore[index]
        before = model(**batches[0])
        assert recalibrate(model, batches) == 1
        after = model(**batches[0])
    assert float(before.mean((0, 2, 3)).abs().max()) > 0.3
    assert float(after.mean((0, 2, 3)).abs().max()) < 0.1
    assert float((after.var((0, 2, 3)) - 1).abs().max()) < 0.1
    assert not model.norm.training and model.norm.momentum == 0.1


def test_single_rows_calibrate_nothing() -> None:
    """A last batch of one row has no mean over rows, and one that is alone leaves the norms as they were."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)).eval()
    wrapped = Named(model)
    few, one = {"x": torch.randn(8, 4) + 3}, {"x": torch.randn(1, 4)}
    assert recalibrate(wrapped, [one]) == 0
    assert torch.equal(model[1].running_mean, torch.zeros(4))  # type: ignore[arg-type]
    assert recalibrate(wrapped, [few, one]) == 1
    torch.testing.assert_close(model[1].running_mean, few["x"].mean(0))


class Named(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out
