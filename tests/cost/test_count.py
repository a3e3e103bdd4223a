"""Counting equals what is worked out by hand, and nothing is counted twice or forgotten silently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from archsmith.cost import count, file_bytes, weight_bytes
from archsmith.errors import BadInput


class Twice(nn.Module):
    """One linear layer used twice, and an attention product."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.again = self.linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.linear(x))
        return functional.scaled_dot_product_attention(x, x, x)


CASES: list[tuple[str, nn.Module, Tensor, int, int]] = [
    ("linear", nn.Linear(8, 4), torch.zeros(3, 8), 36, 3 * 8 * 4),
    ("no bias", nn.Linear(8, 4, bias=False), torch.zeros(3, 8), 32, 3 * 8 * 4),
    ("conv", nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 6, 6), 5 * 27 + 5, 2 * 36 * 5 * 27),
    ("depthwise conv", nn.Conv2d(4, 4, 3, padding=1, groups=4), torch.zeros(1, 4, 6, 6), 40, 36 * 4 * 9),
    ("shared linear and attention", Twice(), torch.zeros(1, 2, 5, 8), 72, 2 * 10 * 64 + 2 * 2 * 5 * 5 * 8),
    ("norm only", nn.LayerNorm(8), torch.zeros(3, 8), 16, 0),
]


@pytest.mark.parametrize(("name", "model", "x", "parameters", "macs"), CASES, ids=[case[0] for case in CASES])
def test_counts_equal_those_by_hand(name: str, model: nn.Module, x: Tensor, parameters: int, macs: int) -> None:
    argument = {"conv": "input", "depthwise conv": "input", "shared linear and attention": "x"}.get(name, "input")
    costs = count(model, {argument: x})
    assert (costs.parameters, costs.macs) == (parameters, macs)
    assert costs.weight_bytes == 4 * parameters


def test_what_has_no_formula_is_listed() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU(), nn.GELU())
    uncounted = count(model, {"input": torch.zeros(1, 4)}).uncounted
    assert uncounted == {"aten.native_layer_norm": 1, "aten.gelu": 2}


def test_counting_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    model[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model, {"input": torch.randn(8, 4)})
    assert model.training and model[1].training and not model[0].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_weights_in_half_the_bytes_weigh_half(tiny: Callable[..., Any]) -> None:
    model = tiny("bert").model
    full = weight_bytes(model)
    assert full >= 4 * sum(p.numel() for p in model.parameters())
    half = {id(p): p.numel() * 2 for p in model.parameters()}
    assert full - weight_bytes(model.half()) == sum(half.values())


def test_tied_weights_weigh_once(tiny: Callable[..., Any]) -> None:
    tied = tiny("qwen2").model
    costs = count(tied, tiny("qwen2").inputs)
    assert costs.parameters == sum(p.numel() for p in {id(p): p for p in tied.parameters()}.values())
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert costs.weight_bytes == 4 * costs.parameters


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5", "vit", "modernbert"])
def test_families_are_counted_with_attention(family: str, tiny: Callable[..., Any]) -> None:
    costs = count(*tiny(family))
    assert costs.macs > costs.parameters / 4
    assert not any("attention" in name or "mm" in name.split(".")[-1] for name in costs.uncounted)


def test_file_bytes_take_the_weights_beside(tmp_path: Path) -> None:
    for name, size in {"a.xml": 3, "a.bin": 50, "b.onnx": 7, "b.onnx.data": 11, "c.bin": 1000}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert file_bytes(tmp_path / "a.xml") == 53
    assert file_bytes(tmp_path / "b.onnx") == 18
    assert file_bytes(tmp_path) == 1071
    with pytest.raises(BadInput, match="a shipped file exists"):
        file_bytes(tmp_path / "none.onnx")
