"""Repair brings a cut network nearer to the original, and leaves a whole one alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from archsmith.compress.norms import recalibrate
from archsmith.compress.repair import exit_paths, repair, watch
from archsmith.evaluate.trained import kept_stream
from archsmith.model import Anatomy, examine, realise

torch.set_num_threads(1)

LAYER = {"bert": "bert.encoder.layer.{}", "llama": "model.layers.{}", "vit": "vit.layers.{}"}
EXITS = {
    "bert": ("attention.output.dense", "output.dense"),
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "vit": ("attention.o_proj", "mlp.fc2"),
}


class Known:
    """A tiny model, what can change in it, and calibration inputs, half of whose rows are padded."""

    def __init__(self, family: str, made: Any) -> None:
        self.model: nn.Module = made.model
        self.anatomy: Anatomy = examine(made.model, made.inputs, np.random.default_rng(0))
        self.exits = exit_paths(self.model, self.anatomy)
        generator = torch.Generator().manual_seed(0)
        self.batches: list[Mapping[str, Tensor]] = []
        for _ in range(6):
            if family == "vit":
                self.batches.append({"pixel_values": torch.randn(8, 3, 16, 16, generator=generator)})
                continue
            mask = torch.ones(8, 11, dtype=torch.int64)
            mask[4:, 7:] = 0
            ids = torch.randint(3, 90, (8, 11), generator=generator) * mask
            self.batches.append({"input_ids": ids, "attention_mask": mask})

    def small(self, architecture: Mapping[str, Any]) -> nn.Module:
        return copy.deepcopy(realise(self.model, self.anatomy, architecture))

    def repaired(self, small: nn.Module, architecture: Mapping[str, Any], batches: int = 5) -> list[float]:
        pairs = [(self.model.get_submodule(path), small.get_submodule(path)) for path in self.exits]
        streams = {path: kept_stream(self.anatomy, architecture, path, self.exits) for path in self.exits}
        kept = {self.model.get_submodule(path): stream for path, stream in streams.items() if stream is not None}
        return repair(self.model, small, pairs, self.batches[:batches], kept)

    def distance(self, small: nn.Module, number: int) -> float:
        """Mean squared distance of the logits on a batch, padding left out."""
        inputs = self.batches[number]
        with torch.no_grad():
            apart = (small(**inputs).logits - self.model(**inputs).logits).square().mean(-1)
        if apart.dim() == 2:
            apart = apart[inputs["attention_mask"].bool()]
        return float(apart.mean())

    def cut(self, share: float, kinds: tuple[str, ...]) -> dict[str, Any]:
        return {n: max(1, int(a.size * share)) for n, a in self.anatomy.axes.items() if a.kind in kinds}


@pytest.fixture(scope="module")
def known(tiny: Callable[..., Any]) -> Callable[[str], Known]:
    made: dict[str, Known] = {}

    def get(family: str) -> Known:
        if family not in made:
            made[family] = Known(family, tiny(family))
        return made[family]

    return get


@pytest.mark.parametrize("family", EXITS)
def test_exits_are_found_in_the_order_of_the_network(known: Callable[[str], Known], family: str) -> None:
    wanted = [f"{LAYER[family].format(number)}.{exit_}" for number in range(3) for exit_ in EXITS[family]]
    assert known(family).exits == wanted


CUTS = [
    ("ffn", 0.5, ("ffn",)),
    ("heads", 0.5, ("heads", "kv_groups")),
    ("both", 0.25, ("ffn", "heads", "kv_groups")),
]


@pytest.mark.parametrize("family", EXITS)
@pytest.mark.parametrize(("share", "kinds"), [case[1:] for case in CUTS], ids=[case[0] for case in CUTS])
def test_repair_brings_the_outputs_nearer(
    known: Callable[[str], Known], family: str, share: float, kinds: tuple[str, ...]
) -> None:
    case = known(family)
    architecture = case.cut(share, kinds)
    assert architecture
    small = case.small(architecture)
    before = [case.distance(small, number) for number in (0, 5)]
    left = case.repaired(small, architecture)
    assert len(left) == 6 and all(0 <= share < 1 + 1e-6 for share in left)
    assert case.distance(small, 0) < 0.9 * before[0], "on what it was fitted to"
    assert case.distance(small, 5) < 0.95 * before[1], "on data that it has not seen"


@pytest.mark.parametrize("family", EXITS)
def test_repair_brings_a_narrower_stream_nearer_to_the_kept_units(known: Callable[[str], Known], family: str) -> None:
    case = known(family)
    architecture = case.cut(0.75, ("ffn", "residual"))
    kept = kept_stream(case.anatomy, architecture, case.exits[0], case.exits)
    assert kept is not None and len(kept) == 24
    small, inputs, last = case.small(architecture), case.batches[5], case.exits[-1]
    goal = watch(case.model, inputs, {"it": case.model.get_submodule(last)})["it"].total[..., kept]

    def apart() -> float:
        found = watch(small, inputs, {"it": small.get_submodule(last)})["it"].total
        return float((found - goal).square().mean())

    before = apart()
    left = case.repaired(small, architecture)
    assert len(left) == 6 and max(left) < 1
    assert apart() < 0.9 * before


@pytest.mark.parametrize("family", EXITS)
def test_layers_behind_are_not_run_again_and_change_nothing(known: Callable[[str], Known], family: str) -> None:
    case = known(family)
    architecture = case.cut(0.5, ("ffn", "heads", "kv_groups"))
    states, runs = [], []
    for told in (False, True):
        small = case.small(architecture)
        layers = [small.get_submodule(LAYER[family].format(number)) for number in range(3)]
        ran: list[nn.Module] = []
        first = layers[0].get_submodule(EXITS[family][0])
        first.register_forward_hook(lambda module, args, out, ran=ran: ran.append(module))
        pairs = [(case.model.get_submodule(path), small.get_submodule(path)) for path in case.exits]
        repair(case.model, small, pairs, case.batches[:2], layers=layers if told else ())
        states.append(small.state_dict())
        runs.append(len(ran))
        assert not any("forward" in vars(module) for module in small.modules())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert runs == [2 * 6, 2 + 2 * 3], "twice to see the order, then for each of its two exits and once to hand on"


@pytest.mark.parametrize("family", EXITS)
def test_a_whole_network_keeps_its_bits(known: Callable[[str], Known], family: str) -> None:
    case = known(family)
    small = case.small({})
    assert case.repaired(small, {}) == [0.0] * 6
    state = small.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in case.model.state_dict().items())


def test_exits_without_a_bias_get_none(known: Callable[[str], Known]) -> None:
    case = known("llama")
    small = case.small(case.cut(0.5, ("ffn",)))
    case.repaired(small, {})
    assert all(small.get_submodule(path).bias is None for path in case.exits)  # type: ignore[union-attr]
    assert all(torch.isfinite(p).all() for p in small.parameters())


def test_the_original_is_not_touched(known: Callable[[str], Known]) -> None:
    case = known("bert")
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    case.repaired(case.small(case.cut(0.5, ("ffn",))), {})
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.model.state_dict().items())
    assert not any(module._forward_hooks for module in case.model.modules())


def test_padding_decides_nothing(known: Callable[[str], Known]) -> None:
    """Other words where the mask is 0: the same repair."""
    case, found = known("bert"), []
    architecture = case.cut(0.5, ("ffn",))
    for word in (0, 50):
        small = case.small(architecture)
        pairs = [(case.model.get_submodule(path), small.get_submodule(path)) for path in case.exits]
        batches = [
            {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, word)}
            for inputs in case.batches
        ]
        repair(case.model, small, pairs, batches)
        found.append(small.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-4, rtol=1e-4)


def test_what_is_seen_of_an_exit_adds_up(known: Callable[[str], Known]) -> None:
    case = known("bert")
    exits = {path: case.model.get_submodule(path) for path in case.exits}
    seen = watch(case.model, case.batches[0], exits)
    assert list(seen) == case.exits
    for path, found in seen.items():
        torch.testing.assert_close(exits[path](found.x), found.output)
        norm = case.model.get_submodule(path.replace("dense", "LayerNorm"))
        read: list[Tensor] = []
        with torch.no_grad(), norm.register_forward_pre_hook(lambda module, args, read=read: read.append(args[0])):
            case.model(**case.batches[0])
        torch.testing.assert_close(found.total, read[0])
        assert not torch.allclose(found.total, found.output)
    assert list(watch(case.model, case.batches[0], exits, last=case.exits[1])) == case.exits[:2]


class Block(nn.Module):
    """x + down(up(x)): one exit whose best refit is known in closed form."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6, bias=bias)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


@pytest.mark.parametrize("bias", [True, False])
def test_a_refit_is_the_ridge_regression_of_its_formula(bias: bool) -> None:
    original, small = Block(bias), Block(bias)
    with torch.no_grad():
        small.up.weight[8:] = 0
        small.up.bias[8:] = 0
    batches = [{"x": torch.randn(20, 6, generator=torch.Generator().manual_seed(n))} for n in range(3)]
    x = torch.cat([inputs["x"] for inputs in batches])
    hidden = small.up(x).relu().detach().double().numpy()
    error = (original(x) - small(x)).detach().double().numpy()
    ones = np.concatenate([hidden, np.ones((len(x), 1))], 1) if bias else hidden
    decay = np.diag(np.r_[np.full(12, 0.1 * (hidden**2).sum(0).mean()), np.zeros(int(bias))])
    change = np.linalg.solve(ones.T @ ones + decay, ones.T @ error)
    wanted = small.down.weight.detach().numpy() + change[:12].T
    left = repair(original, small, [(original.down, small.down)], batches)
    np.testing.assert_allclose(small.down.weight.detach().numpy(), wanted, atol=1e-4)
    assert left[0] == pytest.approx(((error - ones @ change) ** 2).sum() / (error**2).sum(), rel=1e-3)


def test_a_network_without_such_norms_is_not_run(known: Callable[[str], Known]) -> None:
    case = known("bert")
    assert recalibrate(case.model, [{"nonsense": torch.zeros(2)}]) == 0
