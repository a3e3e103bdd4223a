"""Half-precision weights computed with in single precision: the same as the model in single, in the weights' memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from archsmith.compress.repair import exit_paths, repair
from archsmith.model import Place, bench, cut, examine, plan, pretrained, realise, save, wide
from archsmith.model.anatomy import Branch
from archsmith.model.certify import _alternate
from archsmith.model.load import load
from archsmith.model.relay import handed_on, relayed, run_until
from archsmith.model.running import deviation, run
from archsmith.model.wide import Wide, computed_wide

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of these tests are small: let them be widened piece by piece all the same."""
    monkeypatch.setattr(wide, "PIECE", 100)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "vit"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_computes_what_the_same_weights_compute_in_single(
    tiny: Callable[..., Any], family: str, dtype: torch.dtype
) -> None:
    model, inputs = tiny(family)
    half = copy.deepcopy(model).to(dtype)
    single = copy.deepcopy(half).float()
    assert deviation(run(half, inputs), run(single, inputs)) < 1e-5
    assert all(p.dtype == dtype for p in half.parameters() if p.is_floating_point())


def test_gradients_are_those_of_the_single_model(tiny: Callable[..., Any]) -> None:
    model, inputs = tiny("llama")
    half = copy.deepcopy(model).bfloat16()
    single = copy.deepcopy(half).float()
    for each in (half, single):
        with computed_wide(each):
            each(**inputs).logits.square().sum().backward()
    for (name, mine), its in zip(half.named_parameters(), single.parameters(), strict=True):
        assert mine.grad is not None and its.grad is not None and mine.grad.dtype == torch.bfloat16
        assert float((mine.grad.float() - its.grad).norm() / its.grad.norm()) < 0.01, name


def test_a_model_in_single_is_left_alone(tiny: Callable[..., Any]) -> None:
    for dtype, wide_ in ((torch.bfloat16, True), (torch.float32, False)):
        model = tiny("bert").model.to(dtype)
        with computed_wide(model):
            modes = _get_current_dispatch_mode_stack()
        assert any(isinstance(mode, Wide) for mode in modes) == wide_


def test_the_same_can_change_in_half_precision(tiny: Callable[..., Any]) -> None:
    model, inputs = tiny("llama")
    single = examine(model, inputs, np.random.default_rng(0))
    half = examine(copy.deepcopy(model).bfloat16(), inputs, np.random.default_rng(0))
    assert list(half.axes) == list(single.axes) and list(half.branches) == list(single.branches)


def test_a_large_model_keeps_its_precision_and_is_written_in_shards(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "LARGE", 1000)
    monkeypatch.setattr(save, "SHARD", 10_000)
    model, _ = tiny("llama")
    model = copy.deepcopy(model).bfloat16()
    model.save_pretrained(tmp_path / "whole")
    loaded = load(str(tmp_path / "whole"))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16} and loaded.example is not None
    anatomy = examine(loaded.model, loaded.example, np.random.default_rng(0))
    small = cut(
        loaded.model, plan(anatomy, {n: range(a.size // 2) for n, a in anatomy.axes.items() if a.kind == "ffn"})
    )
    save.save(small, loaded, tmp_path / "small")
    shards = sorted((tmp_path / "small").glob("*.safetensors"))
    assert len(shards) > 1 and (tmp_path / "small" / save.INDEX).exists()
    assert {t.dtype for shard in shards for t in load_file(shard).values()} == {torch.bfloat16}
    back = pretrained.load_saved(tmp_path / "small")
    assert deviation(run(back, loaded.example), run(small, loaded.example)) < 1e-6
    save.save(small, loaded, tmp_path / "small")  # again: no shard of before stays
    assert sorted((tmp_path / "small").glob("*.safetensors")) == shards


def test_what_was_run_is_handed_on(tiny: Callable[..., Any]) -> None:
    model, inputs = tiny("bert")
    layers = list(model.bert.encoder.layer)
    assert relayed(model, [inputs], [model.bert.encoder, *layers[::-1]]) == layers
    whole = run(model, inputs)
    given = run_until(model, inputs, layers, layers[2])
    assert list(given) == layers[:2]
    ran: list[int] = []
    hook = layers[0].attention.register_forward_hook(lambda *args: ran.append(1))
    with handed_on(given):
        assert deviation(run(model, inputs), whole) == 0 and not ran
    assert deviation(run(model, inputs), whole) == 0 and ran
    hook.remove()


def test_a_copy_is_handed_on(tiny: Callable[..., Any]) -> None:
    """Whoever is given a tensor may write into it."""
    model, inputs = tiny("bert")
    layer = model.bert.encoder.layer[0]
    given = run_until(model, inputs, [layer])
    with handed_on(given):
        first = layer(None)
        (first if isinstance(first, torch.Tensor) else first[0]).zero_()
        second = layer(None)
    assert float((second if isinstance(second, torch.Tensor) else second[0]).abs().max()) > 0


def test_every_second_layer_of_each_list() -> None:
    layers = [Branch(path, "layer", path, ()) for path in ("a.0", "a.1", "a.2", "b.0")]
    assert [[each.name for each in row] for row in _alternate(layers)] == [["a.0", "a.2"], ["a.1"], ["b.0"]]


def test_a_table_is_felt_in_the_rows_that_were_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table too large to look at whole: its gradient is nought but in a few rows."""
    monkeypatch.setattr(bench, "LOOKED_AT", 64)
    value, gradient = torch.randn(100, 8), torch.zeros(100, 8)
    gradient[[7, 33, 91]] = torch.randn(3, 8)
    place = Place("table.weight", 1, np.arange(8)[:, None])
    order = np.roll(np.arange(8), 1)
    exact = abs(float((gradient * (value[:, order] - value)).sum()))
    assert bench._slope(value, gradient, place, order) == pytest.approx(exact, rel=1e-4)


class Sharing(nn.Module):
    """Its first layer leaves something behind that is read at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Leaving() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        left: torch.Tensor = self.layers[0].left  # type: ignore[assignment]
        self.layers[0].left = None  # type: ignore[assignment]
        return x + left


class Leaving(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4)
        self.left: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left = x * 2
        return super().forward(x)


def test_layers_that_leave_something_behind_are_run_each_time() -> None:
    model = Sharing()
    assert relayed(model, [{"x": torch.randn(2, 4)}], model.layers) == []


def test_half_precision_is_scored_and_repaired(tiny: Callable[..., Any]) -> None:
    model, inputs = tiny("llama")
    half = copy.deepcopy(model).bfloat16()
    anatomy = examine(half, inputs, np.random.default_rng(0))
    ffn = next(name for name, axis in anatomy.axes.items() if axis.kind == "ffn")
    small = copy.deepcopy(realise(half, anatomy, {ffn: 8}))
    pairs = [(half.get_submodule(p), small.get_submodule(p)) for p in exit_paths(half, anatomy)]
    left = repair(half, small, pairs, [inputs, inputs], layers=list(small.model.layers))
    assert len(left) == len(pairs) and max(left) < 1.0 + 1e-3
