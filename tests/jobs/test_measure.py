"""`measure`: every runtime has a row with a time or a reason, for a model folder and for an .onnx file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from archsmith.cost import RUNTIMES, OnnxRuntime
from archsmith.errors import BadInput
from archsmith.jobs.measure import ServedText, measure


@pytest.fixture(scope="module")
def folder(tiny: Callable[..., Any], tmp_path_factory: Any) -> Path:
    place: Path = tmp_path_factory.mktemp("bert")
    tiny("bert", num_hidden_layers=1).model.save_pretrained(place)
    return place


def test_a_folder_has_costs_and_a_row_for_every_runtime(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    found = json.loads(json.dumps(measure(str(folder), length=16)))
    assert found["costs"]["parameters"] > 0 and found["costs"]["macs"] > 0
    assert {row["runtime"] for row in found["latency"]} == set(RUNTIMES)
    for row in found["latency"]:
        if row.get("median_ms") is None:
            assert row["note"]
        else:
            assert 0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"]
            assert row["deviation"] < (1e-4 if row["precision"] == "fp32" else 0.5)
            assert row["runtime"] == "pytorch" or min(row["file_bytes"], row["peak_bytes"]) > 1000
    assert before == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_onnx_file_is_timed_as_it_is(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = tiny("bert", num_hidden_layers=1)
    wrapped: nn.Module = ServedText(model).eval()
    dynamic = {name: {0: "batch", 1: "length"} for name in inputs}
    file = OnnxRuntime().export(wrapped, inputs, dynamic, tmp_path).path
    found = measure(str(file), batch=2, length=9)
    rows = {row["runtime"]: row for row in found["latency"]}
    assert found["costs"]["file_bytes"] == file.stat().st_size
    assert rows["onnxruntime"]["median_ms"] > 0
    assert rows["pytorch"]["note"] == "PyTorch does not run ONNX files"


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("{folder}", {"runtime": "tensorrt"}, "--runtime is all or one of"),
    ("{folder}", {"threads": 0}, "at least 1"),
    ("{folder}", {"length": -3}, "at least 1"),
    ("{folder}/none", {}, "."),
    ("{folder}/none.onnx", {}, "an ONNX file exists"),
    ("{broken}", {}, "holds an ONNX model"),
    ("{folder}", {"length": 4096}, "fit the model's positions"),
    ("x" * 300, {}, "File name too long"),
]


@pytest.mark.parametrize(("source", "options", "law"), CASES, ids=[case[2] + str(case[1]) for case in CASES])
def test_bad_input_is_refused_in_one_line(
    source: str, options: dict[str, Any], law: str, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x00\xffnot protobuf")
    with pytest.raises(BadInput, match=law) as caught:
        measure(source.format(folder=folder, broken=broken), **options)
    assert "\n" not in str(caught.value)
