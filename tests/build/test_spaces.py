"""Every known space: whatever is drawn from it is planned, built, run, and costs what its plan says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from archsmith.build import SPACES, Signal, known_space, network, pieces, planned
from archsmith.build.plan import Part
from archsmith.build.spaces.cells import darts
from archsmith.cost import RUNTIMES
from archsmith.errors import BadInput
from archsmith.evaluate.paper import paper_costs
from archsmith.space import Architecture

GIVEN = {"classes": 10, "vocabulary": 200, "outputs": 24}
PICTURE, TOKENS, SERIES = Signal((3, 32, 32)), Signal((24,), tokens=True), Signal((48, 7))
INPUT = {"text": TOKENS, "encoder": TOKENS, "decoder": TOKENS, "series": SERIES, "encoder-decoder": SERIES}
OUTPUT = {"mlp": (24,), "decoder": (24, 200), "series": (24,), "encoder-decoder": (24,)}
EDGES = ["0->1", "0->2", "1->2", "0->3", "1->3", "2->3"]


def drawn(name: str, seed: int, prune: bool = False) -> tuple[Architecture, Part]:
    blueprint = known_space(name)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        point = blueprint.space.sample(rng)
        try:
            return point, planned(blueprint.static(point, GIVEN), INPUT.get(name, PICTURE), prune=prune)
        except BadInput as error:
            assert name == "nb101" and "reached" in str(error)
    raise AssertionError(name)


@pytest.mark.parametrize("name", SPACES)
def test_what_is_drawn_is_built_and_gives_what_its_plan_says(name: str) -> None:
    for seed in range(3):
        point, plan = drawn(name, seed)
        known_space(name).space.check(point)
        assert plan.gives.shape == OUTPUT.get(name, (10,))
        with torch.device("meta"):
            built = network(plan)
            out = built(INPUT.get(name, PICTURE).example(2))
        assert tuple(out.shape) == (2, *plan.gives.shape)
        assert paper_costs(plan)["parameters"] == sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize("name", SPACES)
def test_a_seed_gives_the_same_weights_and_the_global_generator_is_left_alone(name: str) -> None:
    plan = drawn(name, 0)[1]
    before = torch.get_rng_state()
    one, again, other = network(plan, 1), network(plan, 1), network(plan, 2)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(one.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and any(not torch.equal(a, c) for a, _, c in pairs)


@pytest.mark.parametrize("name", SPACES)
def test_every_module_learns_or_passes_on(name: str) -> None:
    """Where nothing is left lying (`prune`), a loss reaches every parameter."""
    plan = drawn(name, 1, prune=True)[1]
    built = network(plan).train()
    signal = INPUT.get(name, PICTURE)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((4, *signal.shape), generator=generator)
    x = torch.randint(1, 200, (4, *signal.shape), generator=generator) if signal.tokens else x
    built(x).square().mean().backward()
    still = [name for name, p in built.named_parameters() if p.grad is None]
    assert not still


def test_networks_of_nasbench201_have_the_published_counts(shared: Callable[[str], Path]) -> None:
    table = np.load(shared("data/nb201/nb201.npz"))
    blueprint, names = known_space("nb201"), [str(name) for name in table["op_names"]]
    rows = [0, 1, *np.random.default_rng(0).integers(0, len(table["ops"]), 98)]
    for row in rows:
        point = dict(zip(EDGES, [names[op] for op in table["ops"][row]], strict=True))
        plan = planned(blueprint.static(point, {"classes": 10}), PICTURE)
        assert paper_costs(plan)["parameters"] == table["cifar10_params"][row], point
    assert table["cifar10_params"][:2].tolist() == [129306, 802426]


def test_the_cell_that_nasbench101_shows_has_its_published_count() -> None:
    """The Inception-like cell of the README of google-research/nasbench: 2,694,282 trainable parameters."""
    edges = ["0-1", "0-2", "0-3", "0-5", "1-6", "2-6", "3-4", "4-6", "5-6"]
    operators = ["conv1x1-bn-relu", *["conv3x3-bn-relu"] * 3, "maxpool3x3"]
    blueprint = known_space("nb101")
    point = {name: int(name in edges) for name in blueprint.space.choices if "-" in name}
    point |= {f"op{i}": operator for i, operator in enumerate(operators, 1)}
    blueprint.space.check(point)
    assert paper_costs(planned(blueprint.static(point, {"classes": 10}), PICTURE))["parameters"] == 2_694_282


def test_darts_has_its_published_count() -> None:
    """The cells of "DARTS_V2" of the paper's code at 36 channels and 20 cells: 3,349,342 parameters."""
    normal = [("sep_3", "s0"), ("sep_3", "s1"), ("sep_3", "s0"), ("sep_3", "s1"), ("sep_3", "s1"), ("skip", "s0"),
              ("skip", "s0"), ("dil_3", "block0")]  # fmt: skip
    reduction = [("max_3", "s0"), ("max_3", "s1"), ("skip", "block0"), ("max_3", "s1"), ("max_3", "s0"),
                 ("skip", "block0"), ("skip", "block0"), ("max_3", "s1")]  # fmt: skip
    point = {}
    for scope, cell in (("normal", normal), ("reduction", reduction)):
        for place, (op, source) in enumerate(cell):
            block = f"{scope}.block{place // 2}.{'left' if place % 2 == 0 else 'right'}"
            point |= {f"{block}.op": op, f"{block}.from{place // 2}": source}
    declared = darts(36, 20)
    declared.space.check(point)
    plan = planned(declared.static(point, {"classes": 10}), PICTURE)
    assert paper_costs(plan)["parameters"] == 3_349_342


def test_pruning_takes_out_what_no_output_needs() -> None:
    point = dict.fromkeys(EDGES, "nor_conv_3x3") | {"1->2": "none", "1->3": "none"}
    static = known_space("nb201").static(point, {"classes": 10})
    whole, pruned = (planned(static, PICTURE, prune=prune) for prune in (False, True))
    assert len(list(pieces(pruned))) == len(list(pieces(whole))) - 15 * 3  # ReLU, convolution, norm of 0->1 each
    one, other = network(whole).eval(), network(pruned).eval()
    shapes = [tuple(p.shape) for p in other.parameters()]
    assert len(shapes) < len(list(one.parameters()))
    assert paper_costs(pruned)["macs"] < paper_costs(whole)["macs"]


def test_an_unknown_space_is_refused() -> None:
    with pytest.raises(BadInput, match="There are: amoebanet, chain"):
        known_space("nb301")


@pytest.mark.parametrize("sides", [(1, 1), (7, 7), (9, 14)])
def test_every_residual_network_takes_pictures_of_any_sides(sides: tuple[int, int]) -> None:
    blueprint, rng = known_space("residual"), np.random.default_rng(0)
    for _ in range(20):
        point = blueprint.space.sample(rng)
        assert planned(blueprint.static(point, GIVEN), Signal((3, *sides))).gives.shape == (10,)


@pytest.mark.parametrize("sides", [(8, 8), (28, 28), (32, 48)])
def test_a_mobile_network_sees_pictures_of_any_sides_at_a_share_of_them(sides: tuple[int, int]) -> None:
    blueprint = known_space("mobile")
    point = blueprint.space.sample(np.random.default_rng(0))
    x = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    found = []
    for share in (0.75, 0.875, 1.0):
        plan = planned(blueprint.static({**point, "resolution": share}, GIVEN), Signal((3, *sides)))
        stem = next(piece for piece in pieces(plan) if piece.kind == "conv")
        assert stem.gets.around == tuple(round(share * side) for side in sides)
        costs = paper_costs(plan)
        found.append((costs["parameters"], costs["macs"], network(plan, 0).train()(x)))
    assert found[0][0] == found[1][0] == found[2][0] and found[0][1] < found[1][1] < found[2][1]
    assert all(out.shape == (2, 10) for *_, out in found) and not torch.allclose(found[0][2], found[2][2])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_share_of_a_picture_is_the_same_in_every_runtime(name: str, tmp_path: Path) -> None:
    runtime = RUNTIMES[name]()
    module = network(planned([{"resize": {"share": 0.75}}, {"conv": {"out": 4}}], Signal((3, 30, 50)))).eval()
    x = torch.randn(2, 3, 30, 50, generator=torch.Generator().manual_seed(0))
    file = runtime.export(module, {"x": x}, {"x": {0: "batch"}}, tmp_path)
    out = np.asarray(runtime.open(file, 1)({"x": x.numpy()}))
    with torch.no_grad():
        assert np.allclose(out.reshape(2, 4, 22, 38), module(x).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sides", [(5, 17), (30, 50)])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_sides_that_do_not_halve_evenly_are_taken(sides: tuple[int, int], name: str, tmp_path: Path) -> None:
    blueprint, runtime = known_space("nb201"), RUNTIMES[name]()
    plan = planned(blueprint.static(dict.fromkeys(EDGES, "avg_pool_3x3"), GIVEN), Signal((3, *sides)), prune=False)
    module = network(plan).eval()
    x = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0))
    file = runtime.export(module, {"x": x}, {"x": {0: "batch"}}, tmp_path)
    out = np.asarray(runtime.open(file, 1)({"x": x.numpy()}))
    with torch.no_grad():
        assert np.allclose(out.reshape(2, 10), module(x).numpy(), rtol=1e-3, atol=1e-4)
