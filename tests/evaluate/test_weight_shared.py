"""Shared weights: what is trained once orders architectures, and each is judged with norms of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from archsmith.build import SPACES, Declared, Signal, known_space
from archsmith.build.pieces import KINDS, made
from archsmith.build.plan import Part as Plan
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.weight_shared import SIZED, Shared, WeightShared, calibration_of, train_shared
from archsmith.space import Architecture
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal

RECIPE = Recipe(steps=240, batch=32, learning_rate=3e-3)


def test_weights_of_one_place_are_shared_and_of_others_not(ground: Ground, wide: Declared) -> None:
    shared, blueprint = Shared(ground, wide), wide
    points = [{"layer0.op": "wide", "layer1.op": "skip"}, {"layer0.op": "wide", "layer1.op": "wide"}]
    one, two = (shared.network(ground.plan(blueprint, point, prune=False)) for point in points)
    same = {id(p) for p in one.parameters()} & {id(p) for p in two.parameters()}
    assert len(same) == len(list(one.parameters())) == len(list(two.parameters())) - 1
    count = sum(p.numel() for p in shared.parameters())
    assert count == sum(p.numel() for p in Shared(ground, wide).parameters())
    assert all(torch.equal(a, b) for a, b in zip(shared.parameters(), Shared(ground, wide).parameters(), strict=True))


@pytest.mark.parametrize("paths", [1, 3])
def test_what_needs_a_wide_kernel_is_found_without_training_each(ground: Ground, wide: Declared, paths: int) -> None:
    blueprint = wide
    shared = Shared(ground, blueprint)
    train_shared(shared, RECIPE, paths=paths)
    evaluate = WeightShared(shared, calibration_of(ground, 32))
    lost = {}
    for point in blueprint.space.points():
        values = evaluate(Proposal(point), np.random.default_rng(0))
        lost[tuple(point.values())] = values["loss_points"]
    blind = [loss for ops, loss in lost.items() if "wide" not in ops]
    seeing = [loss for ops, loss in lost.items() if "wide" in ops]
    assert min(blind) > 25 and max(seeing) < 15
    first = Architecture({"layer0.op": "wide", "layer1.op": "skip"})
    assert evaluate(Proposal(first), np.random.default_rng(1))["loss_points"] == lost["wide", "skip"]


def test_a_killed_training_goes_on_as_if_nothing_had_been(ground: Ground, wide: Declared, tmp_path: Path) -> None:
    recipe, file = Recipe(steps=120, batch=32, learning_rate=3e-3), tmp_path / "shared.checkpoint"
    straight, killed, rest = (Shared(ground, wide) for _ in range(3))
    train_shared(straight, recipe)

    def kill(step: int) -> None:
        if step == 40:  # a network had what none of those before training had
            killed.kept("rare", lambda: nn.Linear(2, 2))
        if step == 110:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_shared(killed, recipe, checkpoint=file, progress=kill)
    assert len(killed.learnt()) == len(rest.learnt()) < len(killed.state_dict())
    steps: list[int] = []
    train_shared(rest, recipe, checkpoint=file, progress=steps.append)
    assert steps[0] == 101
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), rest.parameters(), strict=True))


def test_weights_are_shared_whatever_the_size_of_the_picture(ground: Ground) -> None:
    network = [{"resize": {"share": "$share"}}, {"conv": {"out": 4, "stride": "$stride"}}, "batch_norm",
               {"residual": {"conv": {"out": 8, "stride": 2}}}, "mean", {"linear": {"out": "$classes"}}]  # fmt: skip
    space = Declared({"share": [0.5, 1.0], "stride": [1, 2]}, network)
    shared = Shared(ground, space)
    networks = [shared.network(ground.plan(space, point, prune=False)) for point in space.space.points()]
    assert all(each(x=torch.randn(2, 3, 8, 8)).shape == (2, 2) for each in networks)
    every = {id(p): tuple(p.shape) for each in networks for p in each.parameters()}
    shapes = list(every.values())
    assert len(networks) == 4 and shapes.count((8, 4, 3, 3)) == shapes.count((2, 8)) == 1
    assert shapes.count((4, 3, 3, 3)) == 2  # one of each stride


LEAST = {
    "attention": {"heads": 2}, "bag": {"rows": 9, "out": 4}, "conv": {"out": 4}, "embedding": {"rows": 9, "out": 4},
    "first": {"out": 2}, "gru": {"out": 4}, "linear": {"out": 4}, "lstm": {"out": 4}, "ngrams": {"rows": 9, "out": 4},
    "patches": {"size": 2, "out": 4}, "project": {"out": 4, "around": [4, 4]}, "queries": {"rows": 3},
    "resample": {"out": 4}, "resize": {"share": 0.5}, "separable": {"out": 4}, "transposed": {"out": 4},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_only_those_modules_differ_with_the_size_that_are_said_to(kind: str) -> None:
    def described(size: int) -> str | None:
        for signal in (Signal((8, size, size)), Signal((size, 8)), Signal((size,), tokens=True), Signal((8,))):
            with contextlib.suppress(ValueError):
                module = made(kind, LEAST.get(kind, {}), signal)
                told = {name: value for name, value in vars(module).items() if not name.startswith("_")}
                return f"{module} {told} {[p.shape for p in module.parameters()]}"
        return None

    small, large = described(4), described(12)
    assert small is not None and (small == large) == (kind not in SIZED)


def test_modules_of_nasbench201_are_there_before_training(ground: Ground) -> None:
    shared = Shared(ground, SPACES["nb201"](cells=1))
    before = len(shared.bank)
    rng = np.random.default_rng(5)
    for _ in range(50):
        shared.network(shared.drawn(rng)[1])
    assert len(shared.bank) == before


def test_costs_are_those_of_what_ships(ground: Ground) -> None:
    blueprint = known_space("nb201")
    edges = ("nor_conv_3x3", "skip_connect", "none", "skip_connect", "none", "skip_connect")
    architecture = Architecture(dict(zip(blueprint.space.choices, edges, strict=True)))
    values = WeightShared(Shared(ground, blueprint, 0), calibration_of(ground, 16)[:1])(
        Proposal(architecture), np.random.default_rng(0)
    )
    ships = paper_costs(ground.plan(blueprint, architecture))
    assert {name: values[name] for name in ships} == ships
    assert ships["parameters"] < paper_costs(ground.plan(blueprint, architecture, prune=False))["parameters"]


def test_two_operators_of_one_place_share_nothing(ground: Ground) -> None:
    blueprint = SPACES["nb201"](cells=1)
    shared = Shared(ground, blueprint)
    none = dict.fromkeys(blueprint.space.order, "none")
    by_op = [
        shared.network(ground.plan(blueprint, none | {"0->3": op}, prune=False))
        for op in ("nor_conv_1x1", "nor_conv_3x3")
    ]
    everywhere = shared.network(ground.plan(blueprint, none, prune=False))
    one, two, outside = ({id(p) for p in each.parameters()} for each in (*by_op, everywhere))
    assert one & two == outside
    assert len(one) - len(outside) == len(two) - len(outside) == 3 * 3


def test_of_several_networks_the_one_with_most_weights_is_trained(ground: Ground) -> None:
    class Noting(Shared):
        """Notes the weights of what it trains."""

        def network(self, plan: Plan) -> torch.nn.Module:
            noted.append(paper_costs(plan)["parameters"])
            return super().network(plan)

    found = []
    for heaviest_of in (1, 4):
        noted: list[float] = []
        train_shared(Noting(ground, SPACES["nb201"](cells=1)), Recipe(steps=30, batch=8), heaviest_of=heaviest_of)
        found.append(np.mean(noted))
    assert found[1] > 1.3 * found[0]


@pytest.mark.parametrize("paths", [2, 4])
def test_a_step_has_the_largest_and_the_smallest_network_of_the_space(ground: Ground, paths: int) -> None:
    class Noting(Shared):
        """Notes the plans that it trains."""

        def network(self, plan: Plan) -> torch.nn.Module:
            if self.training:
                noted.append(plan)
            return super().network(plan)

    noted: list[Plan] = []
    blueprint = SPACES["nb201"](cells=1)
    shared = Noting(ground, blueprint)
    shared.eval()
    train_shared(shared, Recipe(steps=8, batch=8), paths=paths)
    assert len(noted) == 8 * paths
    largest, smallest = (
        paper_costs(ground.plan(blueprint, dict.fromkeys(blueprint.space.order, op), prune=False))["parameters"]
        for op in ("nor_conv_3x3", "none")
    )
    assert {paper_costs(plan)["parameters"] for plan in noted[::paths]} == {largest}
    assert {paper_costs(plan)["parameters"] for plan in noted[1::paths]} == {smallest}
    between = [plan for i, plan in enumerate(noted) if i % paths > 1]
    assert len(set(between)) > 4 or paths == 2


def test_a_network_with_a_layer_that_was_never_trained_is_not_judged(ground: Ground) -> None:
    def space(kernel: int) -> Declared:
        return Declared({}, [{"conv": {"out": 4, "kernel": kernel}}, "relu", "mean", {"linear": {"out": "$classes"}}])

    trained = Shared(ground, space(3))
    shared = Shared(ground, space(3))
    shared.restore(trained.state_dict())
    evaluate = WeightShared(shared, calibration_of(ground, 16))
    assert evaluate(Proposal(Architecture({})), np.random.default_rng(0))["loss_points"] <= 100
    shared.blueprint = space(5)
    with pytest.raises(ValueError, match="a layer that none of the networks had"):
        evaluate(Proposal(Architecture({})), np.random.default_rng(0))
