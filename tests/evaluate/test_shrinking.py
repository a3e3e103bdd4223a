"""Progressive shrinking: what opens when, and whether small networks become good inside the large one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.build import Declared, known_space, pieces
from archsmith.build.plan import Part as Plan
from archsmith.build.spaces.images import mobile
from archsmith.errors import BadInput
from archsmith.evaluate.elastic import Elastic
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.shrinking import phases, train_shrinking
from archsmith.evaluate.sizes import ranked
from archsmith.evaluate.weight_shared import WeightShared, calibration_of
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal

OPS = {"wide": {"conv": {"out": "in", "kernel": "$k"}}, "point": {"conv": {"out": "in", "kernel": 1}}, "skip": "skip"}
# Names say nothing of what a choice is for.
SPACE = Declared(
    {"a": [8, 16], "n": [1, 2], "op": list(OPS), "k": [3, 5], "r": [1, 2]},
    [
        {"conv": {"out": "$a", "kernel": 1}}, "batch_norm",
        {"repeat": "$n", "name": "layer", "of": [{"pick": "$op", "of": OPS}, "batch_norm", "relu"]},
        "mean", {"linear": {"out": "in*$r"}}, "relu", {"linear": {"out": "$classes"}},
    ],
)  # fmt: skip


class Noting(Elastic):
    """Notes the plans of its networks."""

    def network(self, plan: Plan) -> nn.Module:
        if torch.is_grad_enabled():
            self.__dict__.setdefault("asked", []).append(plan)
        return super().network(plan)


def test_values_are_ranked_by_what_they_cost(ground: Ground) -> None:
    order = ranked(ground, SPACE)
    assert order["a"] == (16, 8) and order["n"] == (2, 1) and order["r"] == (2, 1)
    assert order["layer0.op"] == order["layer1.op"] == ("wide", "point", "skip")
    assert order["layer0.k"] == order["layer1.k"] == (5, 3)


def test_operators_and_kernels_open_first_then_depth_then_widths(ground: Ground) -> None:
    order = ranked(ground, SPACE)
    stages = phases(SPACE.uses, order)
    opened = [{name for name, values in stage.open.items() if len(values) > 1} for stage in stages]
    inner = {f"layer{i}.{name}" for i in range(2) for name in ("op", "k")}
    assert opened == [set(), inner, inner | {"n"}, inner | {"n", "a", "r"}]
    assert stages[-1].open == order and all(stage.start == pytest.approx(share) for stage, share in zip(
        stages, (0, 0.3, 0.3 + 0.7 / 3, 0.3 + 1.4 / 3), strict=True))  # fmt: skip


def test_where_nothing_is_known_of_choices_the_largest_values_open_first(ground: Ground) -> None:
    blueprint = known_space("nb101")
    order = ranked(ground, blueprint)
    stages = phases(getattr(blueprint, "uses", {}), order)
    most = max(len(values) for values in order.values())
    assert [max(len(values) for values in stage.open.values()) for stage in stages] == list(range(1, most + 1))
    assert all(values == order[name][: len(values)] for stage in stages for name, values in stage.open.items())


def test_a_step_has_the_largest_network_and_later_the_smallest_and_others_of_what_is_open(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, steps = Noting(ground, SPACE), 30
    divergence, learnt = ground.task.divergence, []

    def noted(outputs: Tensor, original: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            learnt.append(outputs.requires_grad and not original.requires_grad and not torch.equal(outputs, original))
        return divergence(outputs, original)

    monkeypatch.setattr(ground.task, "divergence", noted)
    train_shrinking(shared, Recipe(steps=steps, batch=16), paths=3)
    assert len(learnt) == 2 * 21 and sum(learnt) > 21  # the largest is now and then drawn again
    asked = [(_depth(plan), _width(plan), {p.kind for p in pieces(plan)}) for plan in shared.asked]
    before = 2 * len(phases(SPACE.uses, ranked(ground, SPACE)))
    alone, rest = asked[before : before + 9], asked[before + 9 :]
    assert len(rest) == 3 * 21 and {each[:2] for each in alone} == {(2, 16)}
    kernels, depth, widths = rest[: 3 * 7], rest[3 * 7 : 3 * 14], rest[3 * 14 :]
    assert all(each == asked[before] for each in rest[::3])
    assert {each[:2] for each in kernels} == {(2, 16)} and {each[1] for each in depth} == {16}
    assert {each[:2] for each in depth[1::3]} == {(1, 16)} and {each[:2] for each in widths[1::3]} == {(1, 8)}
    assert len({each[:2] for each in widths[2::3]}) > 1


def _depth(plan: Plan) -> int:
    return sum(piece.kind == "relu" for piece in pieces(plan)) - 1


def _width(plan: Plan) -> int:
    return next(pieces(plan)).gives.channels


def test_what_needs_a_wide_kernel_is_found_among_widths_kernels_and_depths(ground: Ground) -> None:
    shared = Elastic(ground, SPACE)
    train_shrinking(shared, Recipe(steps=320, batch=32, learning_rate=5e-3))
    judge = WeightShared(shared, calibration_of(ground, 32))

    def lost(**values: object) -> float:
        point = {"a": 8, "r": 1, "n": 2} | {name.replace("_", "."): value for name, value in values.items()}
        return judge(Proposal(point), np.random.default_rng(0))["loss_points"]

    seeing = [
        lost(a=width, layer0_op="wide", layer0_k=kernel, layer1_op="skip") for width in (8, 16) for kernel in (3, 5)
    ]
    seeing.append(lost(n=1, layer0_op="wide", layer0_k=3))
    blind = [lost(a=width, layer0_op="point", layer1_op="skip") for width in (8, 16)]
    assert max(seeing) < 15 < 25 < min(blind)
    again = Elastic(ground, SPACE)
    again.restore({name: value.clone() for name, value in shared.state_dict().items()})
    restored = WeightShared(again, calibration_of(ground, 32))
    for point in (SPACE.space.sample(np.random.default_rng(seed)) for seed in range(4)):
        values = [each(Proposal(point), np.random.default_rng(0)) for each in (judge, restored, judge)]
        assert values[0] == values[1] == values[2]


def test_networks_of_all_resolutions_share_their_weights(ground: Ground) -> None:
    space = mobile(widths=(4, 4, 8), strides=(1, 2), depths=(1, 2))
    shared = Noting(ground, space)
    resolutions = space.space.choices["resolution"].values
    assert shared.order["resolution"] == resolutions[::-1] == (1.0, 0.875, 0.75)
    opened = [len(stage.open["resolution"]) for stage in phases(space.uses, shared.order)]
    assert opened[0] == 1 and set(opened[1:]) == {3}
    train_shrinking(shared, Recipe(steps=20, batch=16))
    seen = {next(piece for piece in pieces(plan) if piece.kind == "conv").gets.around for plan in shared.asked}
    assert seen == {(6, 6), (7, 7), (8, 8)}
    judge = WeightShared(shared, calibration_of(ground, 16))
    point = space.space.sample(np.random.default_rng(0))
    networks = [judge.network({**point, "resolution": resolution})[1] for resolution in resolutions]
    weights = [{id(p) for p in each.parameters()} for each in networks]
    assert len(weights[0]) > 20 and all(each == weights[0] for each in weights)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = [each(x=x) for each in networks]
    assert not torch.allclose(outputs[0], outputs[2])


@pytest.mark.parametrize("options", [{"distil": 1.5}, {"paths": 1}])
def test_shares_that_are_none_are_refused(ground: Ground, options: dict[str, float]) -> None:
    train: Callable[..., object] = train_shrinking
    with pytest.raises(BadInput, match="two networks a step or more"):
        train(Elastic(ground, SPACE), Recipe(steps=2), **options)
