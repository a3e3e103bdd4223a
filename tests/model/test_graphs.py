"""Hand-written networks, each with one thing that a trace can get wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from masking import cut_equals_masked
from torch import nn
from torch.nn import functional as F

from archsmith.errors import BadInput
from archsmith.model import cut, examine, plan

torch.set_num_threads(1)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class Flat(nn.Module):
    """Convolution, flatten, linear: a channel is many columns of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 6, 3), nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        return self.out(self.conv(x).relu().flatten(1))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.depth, self.down = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
        self.norm, self.out = nn.BatchNorm2d(8), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.down(self.norm(self.depth(self.up(x))).relu()).mean((2, 3)))


class Mixed(nn.Module):
    """A feed-forward layer whose units each mix positions; `gated`: they are read by something else besides."""

    def __init__(self, gated: bool) -> None:
        super().__init__()
        self.into, self.up, self.down, self.out = nn.Linear(4, 8), nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)
        self.depth, self.gate = nn.Conv1d(12, 12, 3, padding=1, groups=12), nn.Linear(12, 1) if gated else None

    def forward(self, x):
        x = self.into(x)
        hidden = self.depth(self.up(x).transpose(1, 2)).transpose(1, 2)
        share = 1 if self.gate is None else self.gate(hidden).sigmoid()
        return self.out(x + self.down(hidden.relu()) * share)


class Reused(nn.Module):
    """One block used twice on a residual stream, with an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.up, self.down, self.out = nn.Linear(4, 8), nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.into(x)
        for _ in range(2):
            h = h.add_(self.down(self.up(h).relu()))
        return self.out(h)


class Tied(nn.Module):
    """A table that is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.out = nn.Embedding(20, 8), nn.LayerNorm(8), nn.Linear(8, 20, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x):
        return self.out(self.norm(self.table(x)))


class Gated(nn.Module):
    """A gated layer whose two halves are one fused matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 20), nn.Linear(10, 3)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class Fused(nn.Module):
    """Attention with one projection laid out as (3, heads, width), heads baked in as an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.inner = 4, 12
        self.qkv, self.out = nn.Linear(5, 36), nn.Linear(12, 2)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(b, n, self.inner))


class Two(nn.Module):
    """`unused` has no part in the output: never called, or called and multiplied by zero."""

    def __init__(self, silent: bool) -> None:
        super().__init__()
        self.silent = silent
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)
        self.unused_up, self.unused_down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.down(self.up(x).relu())
        return y + 0.0 * self.unused_down(self.unused_up(x).relu()) if self.silent else y


class ScaledByWidth(nn.Module):
    """Divides by the width of the moment, so a cut computes something else than the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.up(x)
        return self.down(hidden / hidden.shape[-1])


class Chosen(nn.Module):
    """A softmax over units: they compete, so none can go."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.down(self.up(x).softmax(-1))


class Unknown(nn.Module):
    """An operator that has no rule between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(4, 6), nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.down(self.mid(torch.linalg.qr(self.up(x))[1].abs()).relu())


class Placed(nn.Module):
    """Adds a ramp made in the forward pass: a unit is tied to its place."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.down((self.up(x) + torch.arange(6.0)).relu())


class Picked(nn.Module):
    """Picks one unit by its number: to compute with it, or for its shape alone."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.used, self.up, self.down = used, nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.up(x)
        last = hidden[..., -1]
        return self.down(hidden.relu()) + (last.unsqueeze(-1) if self.used else torch.ones(last.shape).unsqueeze(-1))


IMAGE, VECTOR = torch.randn(2, 3, 6, 6), torch.randn(2, 7, 4)
ACCEPTED = [
    (Flat, {"x": IMAGE}, {"conv.channels": 6}),
    (Depthwise, {"x": IMAGE}, {"up.channels": 8, "down.channels": 4}),
    (lambda: Mixed(False), {"x": VECTOR}, {"residual": 8, "ffn": 12}),
    (lambda: Mixed(True), {"x": VECTOR}, {"residual": 8, "up.channels": 12}),
    (Reused, {"x": VECTOR}, {"residual": 8, "ffn": 12}),
    (Tied, {"x": torch.randint(0, 20, (2, 5))}, {"table.width": 8}),
    (Gated, {"x": VECTOR}, {"up.width": 10}),
    (Fused, {"x": torch.randn(2, 7, 5)}, {"heads": 4}),
    (lambda: Two(False), {"x": VECTOR}, {"up.width": 6}),
    (lambda: Two(True), {"x": VECTOR}, {"up.width": 6}),
    (ScaledByWidth, {"x": VECTOR}, {}),
    (Chosen, {"x": VECTOR}, {}),
    (Unknown, {"x": VECTOR}, {"mid.width": 7}),
    (Placed, {"x": VECTOR}, {}),
    (lambda: Picked(True), {"x": VECTOR}, {}),
    (lambda: Picked(False), {"x": VECTOR}, {"up.width": 6}),
]


@pytest.mark.parametrize(("make", "inputs", "expected"), ACCEPTED)
def test_only_true_widths_are_certified_and_their_cut_equals_the_mask(make, inputs, expected):
    torch.manual_seed(0)
    model = make().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    anatomy = examine(model, inputs, rng())
    assert {
        name: axis.size for name, axis in anatomy.axes.items() if axis.kind != "width" or name in expected
    } == expected
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    if expected and make is not Tied and make is not Unknown:
        assert cut_equals_masked(model, inputs, anatomy, rng()) < 1e-5


REASONS = [
    (lambda: Two(True), "unused_up.width", "never exercise"),
    (ScaledByWidth, "up.width", "differs from the masked"),
]


@pytest.mark.parametrize(("make", "name", "reason"), REASONS)
def test_a_rejection_says_why(make, name, reason):
    anatomy = examine(make().eval(), {"x": VECTOR}, rng())
    verdict = next(c for c in anatomy.certificates if c.subject == name)
    assert not verdict.accepted and reason in verdict.reason


FROZEN = [
    (Chosen, "up.weight[0]", "softmax runs along it"),
    (Placed, "up.weight[0]", "constants made in the forward pass"),
    (lambda: Two(False), "unused_up.weight[0]", "not used"),
    (lambda: Picked(True), "up.weight[0]", "picked by number"),
    (Unknown, "up.weight[0]", "linalg_qr"),
]


@pytest.mark.parametrize(("make", "place", "reason"), FROZEN)
def test_what_cannot_change_says_why(make, place, reason):
    anatomy = examine(make().eval(), {"x": VECTOR}, rng())
    assert reason in anatomy.frozen[place]


def test_unknown_operators_are_counted_by_name():
    assert examine(Unknown().eval(), {"x": VECTOR}, rng()).unknown_operators == {"linalg_qr": 1}


def test_tied_parameters_stay_tied_after_a_cut():
    model = Tied().eval()
    anatomy = examine(model, {"x": torch.randint(0, 20, (2, 5))}, rng())
    small = cut(model, plan(anatomy, {"table.width": [1, 3, 4]}))
    assert small.out.weight is small.table.weight and small.table.weight.shape == (20, 3)
    assert small.table.embedding_dim == 3 and small.norm.normalized_shape == (3,) and small.out.in_features == 3


def test_integers_of_modules_follow_a_cut():
    model = Fused().eval()
    anatomy = examine(model, {"x": torch.randn(2, 7, 5)}, rng())
    small = cut(model, plan(anatomy, {"heads": [0, 2]}))
    assert (small.num_heads, small.inner, small.qkv.out_features, small.out.in_features) == (2, 6, 18, 6)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.noise = nn.Sequential(nn.Identity(), Rolling())

    def forward(self, x):
        return self.noise(self.body(x))


class Rolling(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Broken(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.body = how, nn.Linear(4, 4)

    def forward(self, x):
        if self.how == "raises":
            raise KeyError("no such thing")
        y = self.body(x)
        return {"nan": y / 0 * 0, "integers": y.argmax(-1)}[self.how]


BAD = [
    (Noisy(), "deterministic", "noise.1"),
    (Broken("raises"), "must run", "KeyError"),
    (Broken("nan"), "must not be NaN", "output 0"),
    (Broken("integers"), "floating-point", "none"),
]


@pytest.mark.parametrize(("model", "law", "value"), BAD)
def test_a_model_that_cannot_be_examined_is_refused(model, law, value):
    with pytest.raises(BadInput) as refused:
        examine(model.eval(), {"x": VECTOR}, rng())
    assert law in str(refused.value) and value in str(refused.value)


def test_training_mode_of_the_model_is_left_alone():
    model = Depthwise().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    examine(model, {"x": IMAGE}, rng())
    assert model.training and model.norm.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class Windowed(nn.Module):
    """What a long input runs through besides: a sum over the units that a cut cannot follow, since it counts to six."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.up(x).relu()
        if x.shape[1] > 5:
            h = h * h.shape[-1] / 6
        return self.out(h).mean(1)


def test_a_path_that_only_long_inputs_run_is_proved_on_them():
    torch.manual_seed(0)
    model, short, long = Windowed().eval(), {"x": torch.randn(2, 3, 4)}, {"x": torch.randn(2, 9, 4)}
    assert list(examine(model, short, rng()).axes)
    anatomy = examine(model, short, rng(), long)
    assert not anatomy.axes
    assert [c.accepted for c in anatomy.certificates] == [False]
    assert list(examine(model, short, rng(), short).axes), "what holds on the other inputs stays"


def test_a_table_that_a_forward_pass_shrinks_is_left_as_it_was():
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.up, self.down = nn.Embedding(20, 8, max_norm=0.1), nn.Linear(8, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.down(self.up(self.table(x)).relu())

    model = Bounded()
    before = model.table.weight.detach().clone()
    anatomy = examine(model, {"x": torch.randint(0, 20, (4, 6))}, rng())
    assert torch.equal(model.table.weight, before)
    assert [axis.size for axis in anatomy.axes.values()] == [12]


class Leaky(nn.Module):
    """A feed-forward block that may give more than its last product does."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.leak = nn.Linear(8, 16), nn.Linear(16, 8), 0.0

    def forward(self, x):
        y = self.down(self.up(x).relu())
        return y + self.leak * torch.sin(3 * x) if self.leak else y


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.out = nn.ModuleList([Leaky() for _ in range(4)]), nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.out(x)


@pytest.mark.parametrize("fault", ["idle", "weak"])
def test_a_branch_does_not_hide_among_others(fault):
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.down.weight.mul_(3)
        third = model.layers[2]
        if fault == "idle":
            third.up.bias.fill_(-1000.0)
        else:
            third.down.weight.mul_(1e-3 / 3)
            third.down.bias.zero_()
            third.leak = 3e-4
    anatomy = examine(model, {"x": torch.randn(2, 5, 8)}, rng())
    blocks = [name for name, branch in anatomy.branches.items() if branch.kind == "ffn"]
    assert blocks == [f"layers.{i}.ffn.block" for i in (0, 1, 3)]
