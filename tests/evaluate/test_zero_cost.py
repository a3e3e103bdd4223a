"""Scores before training: each is its paper's formula, and leaves the network as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.build import Signal, known_space, network, planned
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.zero_cost import SCORES, rank_ensemble, zero_cost

POINT = dict.fromkeys(["0->1", "0->2", "1->2", "0->3", "1->3", "2->3"], "nor_conv_3x3")


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 8, 8, generator=generator), torch.arange(6) % 3


def cell() -> nn.Module:
    return network(planned(known_space("nb201").static(POINT, {"classes": 3}), Signal((3, 8, 8))))


def two_layers() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_a_number_that_comes_again_and_leaves_no_trace(name: str, batch: tuple[Tensor, Tensor]) -> None:
    module = cell().train()
    module.body[0].eval()
    before, modes = copy.deepcopy(module.state_dict()), [part.training for part in module.modules()]
    first = zero_cost(module, *batch, [name])[name]
    assert np.isfinite(first) and zero_cost(module, *batch, [name])[name] == pytest.approx(first, rel=1e-6)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_costs_are_those_of_the_plan(batch: tuple[Tensor, Tensor]) -> None:
    plan = planned(known_space("nb201").static(POINT, {"classes": 3}), Signal((3, 8, 8)))
    found, wanted = zero_cost(network(plan), *batch, ["macs", "parameters"]), paper_costs(plan)
    assert found == {name: pytest.approx(wanted[name], rel=0.01) for name in ("macs", "parameters")}


@pytest.mark.parametrize("part", [{"lstm": {"out": 8}}, {"attention": {"heads": 2}}])
def test_macs_are_those_of_the_plan_whatever_kernels_a_processor_has(part: dict[str, object]) -> None:
    plan = planned([part, "mean", {"linear": {"out": 3}}], Signal((24, 6)))
    assert SCORES["macs"](network(plan), torch.randn(5, 24, 6), torch.zeros(5)) == paper_costs(plan)["macs"]


def test_naswot_counts_units_in_the_same_state(batch: tuple[Tensor, Tensor]) -> None:
    module = two_layers()
    on = (module[:2](batch[0]) > 0).numpy()
    alike = (on[:, None] == on[None]).sum(2)
    assert SCORES["naswot"](module, *batch) == pytest.approx(np.linalg.slogdet(alike.astype(float))[1])


def test_synflow_is_the_sum_over_all_paths(batch: tuple[Tensor, Tensor]) -> None:
    module = two_layers()
    first, second = (module[i].weight.detach().double().abs() for i in (1, 3))
    paths = (second @ (first @ torch.ones(192, dtype=torch.float64))).sum()
    bias = (second @ module[1].bias.detach().double().abs()).sum()  # counted for the second layer and for itself
    last = module[3].bias.detach().double().abs().sum()
    wanted = paths + (paths + bias) + bias + last
    assert SCORES["synflow"](module, *batch) == pytest.approx(float(wanted.log()))


def test_scores_by_gradients_are_their_formulas(batch: tuple[Tensor, Tensor]) -> None:
    module = two_layers()
    weights = [module[1].weight, module[3].weight]
    loss = F.cross_entropy(module(batch[0]), batch[1])
    slopes = torch.autograd.grad(loss, weights)
    assert SCORES["gradient_norm"](module, *batch) == pytest.approx(sum(float(g.norm()) for g in slopes))
    wanted = sum(float((w * g).abs().sum()) for w, g in zip(weights, slopes, strict=True))
    assert SCORES["snip"](module, *batch) == pytest.approx(wanted)

    def gradient(*moved: Tensor) -> tuple[Tensor, ...]:
        out = F.linear(F.linear(batch[0].flatten(1), moved[0], module[1].bias).relu(), moved[1], module[3].bias)
        return torch.autograd.grad(F.cross_entropy(out, batch[1]), moved)

    step = 1e-3  # the Hessian times the gradient, by finite differences
    ahead = gradient(*((w + step * g).detach().requires_grad_() for w, g in zip(weights, slopes, strict=True)))
    behind = gradient(*((w - step * g).detach().requires_grad_() for w, g in zip(weights, slopes, strict=True)))
    products = [(a - b) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
    wanted = -sum(float((w * h).sum()) for w, h in zip(weights, products, strict=True))
    assert SCORES["grasp"](module, *batch) == pytest.approx(wanted, rel=0.05)


def test_a_dead_network_is_the_worst(batch: tuple[Tensor, Tensor]) -> None:
    dead = network(
        planned(known_space("nb201").static(dict.fromkeys(POINT, "none"), {"classes": 3}), Signal((3, 8, 8)))
    )
    for name in ("naswot", "synflow"):
        assert SCORES[name](dead, *batch) < SCORES[name](cell(), *batch)


def test_the_ensemble_is_the_mean_rank() -> None:
    assert rank_ensemble({"a": [1, 2, -np.inf], "b": [5, 6, 7]}).tolist() == [0.25, 0.75, 0.5]


def test_fisher_sums_over_the_places_of_each_channel() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        plain, turned = nn.Linear(4, 5), nn.Conv1d(4, 5, 1)
    turned.weight.data, turned.bias.data = plain.weight.data[..., None].clone(), plain.bias.data.clone()
    x = torch.randn(6, 7, 4, generator=torch.Generator().manual_seed(0))

    class Mean(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            self.part = part

        def forward(self, x: Tensor) -> Tensor:
            out = self.part(x if isinstance(self.part, nn.Linear) else x.transpose(1, 2))
            return out.mean(1 if isinstance(self.part, nn.Linear) else 2)

    ours, theirs = (zero_cost(Mean(part), x, torch.arange(6) % 5, ["fisher"])["fisher"] for part in (plain, turned))
    assert ours == pytest.approx(theirs, rel=1e-5) and ours > 0


def test_attention_has_a_second_derivative(batch: tuple[Tensor, Tensor]) -> None:
    space = known_space("vit")
    point = space.space.sample(np.random.default_rng(0))
    module = network(planned(space.static(point, {"classes": 3}), Signal((3, 32, 32))))
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert np.isfinite(zero_cost(module, x, batch[1], ["grasp"])["grasp"])
