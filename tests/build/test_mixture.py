"""Mixtures: a network whose picks are weighed sums, and what its strengths come down to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from archsmith.build import Declared, Signal, known_space, network, pieces, planned
from archsmith.build.network import Weights, new
from archsmith.build.plan import Piece
from archsmith.build.spec import Strengths
from archsmith.errors import BadInput

PICTURE = Signal((3, 16, 16))
GIVEN = {"classes": 4}


def hard(space: Declared, chosen: dict[str, str]) -> dict[str, dict[str, torch.Tensor]]:
    """Weight 1 for what is chosen, 0 for all else."""
    return {
        name: {str(v): torch.tensor(float(str(v) == chosen[name])) for v in choice.values}
        for name, choice in space.space.choices.items()
    }


def test_a_mixture_with_all_weight_on_one_path_is_that_network() -> None:
    space = known_space("nb201")
    assert isinstance(space, Declared)
    bank: dict[str, torch.nn.Module] = {}

    def module_of(piece: Piece) -> torch.nn.Module:
        return bank.setdefault(f"{piece.path} {piece.kind} {piece.options}", new(piece))

    weights = Weights()
    mixed = network(planned(space.mixture(GIVEN), PICTURE), module_of=module_of, weights=weights).eval()
    x, rng = torch.randn(2, 3, 16, 16), np.random.default_rng(0)
    for _ in range(5):
        point = space.space.sample(rng)
        single = network(planned(space.static(point, GIVEN), PICTURE), module_of=module_of).eval()
        weights.of = hard(space, {name: str(value) for name, value in point.items()})
        torch.testing.assert_close(mixed(x), single(x))


def test_weights_not_chosen_get_a_gradient_without_being_computed() -> None:
    space = Declared({"op": ["a", "b"]}, [{"pick": "$op", "of": {"a": {"conv": {"out": "in"}}, "b": "skip"}}])
    weights = Weights()
    built = network(planned(space.mixture({}), PICTURE), weights=weights)
    alpha = torch.zeros(2, requires_grad=True)
    chance = alpha.softmax(0)
    sample = torch.tensor([0.0, 1.0]) + chance - chance.detach()
    weights.of = {"op": {"a": sample[0], "b": sample[1]}}
    x = torch.randn(2, 3, 16, 16)
    out = built(x)
    torch.testing.assert_close(out, x)
    out.sum().backward()
    assert alpha.grad is not None and bool((alpha.grad != 0).all())
    assert all(p.grad is None for p in built.parameters())


def test_a_mixture_of_the_values_that_are_left() -> None:
    space = known_space("nb201")
    assert isinstance(space, Declared)
    left = dict.fromkeys(space.space.choices, ("skip_connect", "nor_conv_3x3"))
    paths = [piece.path for piece in pieces(planned(space.mixture(GIVEN, left), PICTURE))]
    assert {path.split("=")[1].split("/")[0] for path in paths if "=" in path} == {"skip_connect", "nor_conv_3x3"}


@pytest.mark.parametrize("name", ["chain", "mobile", "vit"])
def test_what_is_no_part_cannot_be_mixed(name: str) -> None:
    space = known_space(name)
    assert isinstance(space, Declared)
    with pytest.raises(BadInput, match="only what is picked can be mixed"):
        space.relaxed.declared.mixture(GIVEN)


def test_darts_takes_the_two_strongest_edges_of_each_block() -> None:
    space = known_space("darts")
    assert isinstance(space, Declared)
    edges = space.relaxed.declared
    strength: dict[str, dict[str, float]] = {
        name: {str(v): 0.0 for v in choice.values} for name, choice in edges.space.choices.items()
    }
    for scope in ("normal", "reduction"):
        strength[f"{scope}.block2.block0.op"]["sep_5"] = 3.0
        strength[f"{scope}.block2.s1.op"]["skip"] = 2.0
        strength[f"{scope}.block2.s0.op"]["none"] = 9.0
    point = space.relaxed.settle(strength)
    assert point in space.space
    assert point["normal.block2.left.from2"] == "s1" and point["normal.block2.left.op"] == "skip"
    assert point["reduction.block2.right.from2"] == "block0" and point["reduction.block2.right.op"] == "sep_5"


def test_every_path_of_darts_is_within_its_mixture() -> None:
    space = known_space("darts")
    assert isinstance(space, Declared)
    every = {(p.path, p.kind, p.options) for p in pieces(planned(space.relaxed.declared.mixture(GIVEN), PICTURE))}
    point = space.space.sample(np.random.default_rng(0))
    own = {(p.path, p.kind, p.options) for p in pieces(planned(space.static(point, GIVEN), PICTURE))}
    assert own <= every


def test_strongest_values_of_a_declared_space_heed_its_conditions() -> None:
    ops = {"a": {"conv": {"out": "in"}}, "b": {"pick": "$inner", "of": {"c": "skip", "d": "relu"}}}
    space = Declared({"op": ["a", "b"], "inner": ["c", "d"]}, [{"pick": "$op", "of": ops}])
    strength: Strengths = {"op": {"a": 1.0, "b": 0.0}, "inner": {"c": 0.0, "d": 1.0}}
    assert dict(space.relaxed.settle(strength)) == {"op": "a"}
    assert dict(space.relaxed.settle({**strength, "op": {"a": 0.0, "b": 1.0}})) == {"op": "b", "inner": "d"}
