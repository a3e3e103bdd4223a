"""Lower precision: the file gets smaller, runs at any shape, and stays near the original."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from archsmith.compress.quantise import lacks_nncf, quantise
from archsmith.cost import RUNTIMES, Artifact, Precision, arrays, file_bytes, resize
from archsmith.errors import BadInput

DYNAMIC = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


@pytest.mark.parametrize(("name", "precision"), [("onnxruntime", "int8"), ("openvino", "int8")])
def test_int8_is_smaller_and_near_the_original_at_every_shape(
    name: str, precision: Precision, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    runtime = RUNTIMES[name]()
    reason = runtime.available() or (lacks_nncf() if name == "openvino" else None)
    if reason:
        pytest.skip(reason)
    # Wide enough for weights to outweigh the graph.
    model, inputs = tiny("bert", hidden_size=64, intermediate_size=512, num_hidden_layers=1)
    wrapped = Logits(model).eval()
    exported = runtime.export(wrapped, inputs, DYNAMIC, tmp_path)
    lowered = quantise(exported, precision, [arrays(inputs)] * 3, tmp_path / "int8")
    assert lowered.precision == precision and lowered.path != exported.path
    assert file_bytes(lowered.path) < 0.6 * file_bytes(exported.path)
    full, low = runtime.open(exported), runtime.open(lowered)
    for shape in ({"batch": 1, "length": 5}, {"batch": 4, "length": 30}):
        example = arrays(resize(inputs, DYNAMIC, shape))
        expected, found = full(example), low(example)
        scale = np.abs(expected).max()
        assert 0 < np.abs(expected - found).max() < 0.25 * scale


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("pytorch", "bf16"), ("openvino", "bf16"), ("pytorch", "fp32"), ("onnxruntime", "fp32")],
)
def test_bf16_is_a_hint_on_the_same_file(runtime: str, precision: Precision, tmp_path: Path) -> None:
    artifact = Artifact(runtime, "fp32", tmp_path / "model")
    assert quantise(artifact, precision, [], tmp_path) == replace(artifact, precision=precision)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("runtime", "start", "precision", "law"),
    [
        ("onnxruntime", "fp32", "bf16", "onnxruntime has this precision"),
        ("pytorch", "fp32", "int8", "pytorch has this precision"),
        ("onnxruntime", "fp32", "int8+bf16", "onnxruntime has this precision"),
        ("onnxruntime", "int8", "int8", "only an fp32 file"),
        ("openvino", "fp32", "int8", "needs calibration inputs|needs nncf"),
    ],
)
def test_what_cannot_be_lowered_is_refused(
    runtime: str, start: Precision, precision: Precision, law: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=law):
        quantise(Artifact(runtime, start, tmp_path / "model.xml"), precision, [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_nncf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(module: str, *rest: Any, **named: Any) -> Any:
        if module == "nncf":
            raise ImportError("No module named 'nncf'")
        return real(module, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    inputs = {"input_ids": np.zeros((1, 2), np.int64)}
    with pytest.raises(BadInput, match=r"archsmith\[openvino\]"):
        quantise(Artifact("openvino", "fp32", tmp_path / "m.xml"), "int8", [inputs], tmp_path)
