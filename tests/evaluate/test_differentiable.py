"""Architectures by gradient: strengths find what the task needs, and skip connections do not take over."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from archsmith.build import SPACES, Declared, known_space
from archsmith.errors import BadInput
from archsmith.evaluate.differentiable import Mixture, _Alternating, mixed_plan, train_mixture, train_progressively
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.weight_shared import Shared, WeightShared, calibration_of
from archsmith.jobs.oneshot import shallower
from archsmith.space import Architecture
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal

RECIPE = Recipe(steps=240, batch=32, learning_rate=3e-3)


def trained(ground: Ground, blueprint: Declared, **options: object) -> Mixture:
    shared = Shared(ground, blueprint)
    mixture = Mixture(shared)
    train_mixture(mixture, RECIPE, **options)  # type: ignore[arg-type]
    return mixture


@pytest.mark.parametrize(
    "options", [{}, {"second_order": True}, {"method": "gdas"}], ids=["first order", "second order", "gdas"]
)
def test_strengths_find_the_wide_kernel(ground: Ground, wide: Declared, options: dict[str, object]) -> None:
    mixture = trained(ground, wide, **options)
    found = mixture.relaxed.settle(mixture.strength.strengths())
    assert "wide" in found.values()


@pytest.mark.parametrize("second_order", [False, True])
def test_a_loss_that_is_not_finite_moves_no_strength(ground: Ground, wide: Declared, second_order: bool) -> None:
    mixture = Mixture(Shared(ground, wide, 0))
    steps = _Alternating(mixture, RECIPE, "darts", second_order, 0.0)
    fine, rows = steps.lose, list(range(16))
    steps(rows)  # its weights are there
    before = mixture.strength.copy(), [p.detach().clone() for p in mixture.wrapped.parameters()]
    mixture.weights.of = mixture.strength.weights(None, np.random.default_rng(0))
    steps.lose = lambda given: fine(given) * math.nan
    steps._move(rows, rows)
    assert all(torch.equal(p, old) for p, old in zip(mixture.wrapped.parameters(), before[1], strict=True))
    assert all(torch.equal(each, old) for each, old in zip(mixture.strength.copy(), before[0], strict=True))
    steps.lose = fine
    mixture.weights.of = mixture.strength.weights(None, np.random.default_rng(0))
    steps._move(rows, rows)
    after = mixture.strength.copy()
    assert any(not torch.equal(each, old) for each, old in zip(after, before[0], strict=True))
    assert all(bool(each.isfinite().all()) for each in after)


def test_second_order_is_the_gradient_after_a_step() -> None:
    """Against the true gradient through one step of w, on a small problem in double precision."""
    from archsmith.evaluate import differentiable

    torch.manual_seed(0)
    a, w = torch.nn.Parameter(torch.randn(3).double()), torch.nn.Parameter(torch.randn(3).double())

    class Held:
        wrapped = torch.nn.Module()
        strength = torch.nn.Module()

    Held.wrapped.w, Held.strength.a = w, a

    def lose(rows: list[int]) -> torch.Tensor:
        return ((w * a.exp()).sum() - rows[0]) ** 2 + (w**4).sum() * a.sum()

    (slope,) = differentiable._unrolled(Held, lose, [1], [2], 0.01)  # type: ignore[arg-type]
    (down,) = torch.autograd.grad(lose([1]), w, create_graph=True)
    after = w - 0.01 * down
    true = torch.autograd.grad((((after * a.exp()).sum() - 2) ** 2 + (after**4).sum() * a.sum()), a)[0]
    (first,) = torch.autograd.grad(lose([2]), a)
    torch.testing.assert_close(slope, true, rtol=1e-3, atol=1e-4)
    assert float((first - true).abs().max()) > 0.05


def test_skips_that_take_over_end_the_training_of_strengths(ground: Ground) -> None:
    ops = {"skip": "skip", "point": {"conv": {"out": "in", "kernel": 1}}}
    layer = {"repeat": 4, "name": "layer", "of": [{"pick": "$op", "of": ops}, "batch_norm"]}
    head = ["mean", {"linear": {"out": "$classes"}}]
    blueprint = Declared({"op": list(ops)}, [{"conv": {"out": 8}}, layer, *head])
    shared = Shared(ground, blueprint)
    mixture = Mixture(shared)
    for logit in mixture.strength.logits:
        logit.data[:] = torch.tensor([0.3, 0.0])
    mixed = train_mixture(mixture, Recipe(steps=40, batch=32))
    assert mixed.ended is not None and mixture.most_skips == 1
    mixture.thin()
    assert len(mixture.skipping()) == 1


def test_progressive_stages_leave_fewer_operators(ground: Ground) -> None:
    depths: list[float] = []

    def shared_of(depth: float) -> Shared:
        depths.append(depth)
        return Shared(ground, SPACES["nb201"](cells=1))

    mixture, _ = train_progressively(shared_of, Recipe(steps=6, batch=16))
    assert depths == [0.3, 0.6, 1.0]
    assert {len(of) for of in mixture.strength.values.values()} == {2}
    assert mixture.relaxed.settle(mixture.strength.strengths()) in known_space("nb201").space


def test_networks_of_operators_that_a_stage_has_dropped_are_not_judged(ground: Ground) -> None:
    blueprint = SPACES["nb201"](cells=1)
    mixture, _ = train_progressively(lambda depth: Shared(ground, blueprint), Recipe(steps=6, batch=16))
    shared = Shared(ground, blueprint)
    shared.restore(mixture.shared.learnt())
    judge = WeightShared(shared, calibration_of(ground, 16))
    inside = mixture.relaxed.settle(mixture.strength.strengths())
    assert judge(Proposal(inside), np.random.default_rng(0))["loss_points"] <= 100
    kept, weighty = mixture.strength.values, {"nor_conv_1x1", "nor_conv_3x3"}
    dropped = {name: min(weighty - set(values)) for name, values in kept.items() if weighty - set(values)}
    assert dropped and any(weighty & set(values) for values in kept.values())
    for name, op in dropped.items():
        with pytest.raises(ValueError, match="a layer that none of the networks had"):
            judge(Proposal(Architecture({**inside, name: op})), np.random.default_rng(0))


@pytest.mark.parametrize(("name", "law"), [("nb101", "declares none"), ("chain", "only what is picked can be mixed")])
def test_a_space_without_operators_to_mix_says_so(ground: Ground, name: str, law: str) -> None:
    with pytest.raises(BadInput, match=law):
        mixed_plan(ground, known_space(name))


def test_skips_count_where_none_is_strongest_too(ground: Ground) -> None:
    mixture = Mixture(Shared(ground, SPACES["darts"](cells=3)))
    for values, logit in zip(mixture.strength.values.values(), mixture.strength.logits, strict=True):
        logit.data[:] = torch.tensor([2.0 if value == "none" else 1.0 if value == "skip" else 0.0 for value in values])
    settled = mixture.relaxed.settle(mixture.strength.strengths())
    assert sum(value == "skip" for value in settled.values()) == 16
    assert len(mixture.skipping()) == 13  # three of them halve the size, and have weights
    assert mixture.most_skips == 4
    mixture.thin()
    assert len(mixture.skipping()) == 4


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_a_space_has_the_choices_of_the_cells_that_it_has(cells: int) -> None:
    found = {name.partition(".")[0] for name in SPACES["darts"](cells=cells).space.choices}
    assert found == ({"reduction"} if cells < 3 else {"normal", "reduction"})
    assert set(shallower("darts", SPACES["darts"](), 0.1).space.choices) == set(SPACES["darts"]().space.choices)
