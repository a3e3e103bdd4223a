"""The law of the loading page: every snippet that is shown runs as it stands, without archsmith."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from archsmith.cost import RUNTIMES
from archsmith.report.loading import snippets
from archsmith.report.result import Variant

BLOCK = "import sys; sys.modules['archsmith'] = None\n"
BEST = Variant("best", 90.0, 1.0, "onnxruntime", "fp32", parameters=1, macs=1, bytes=1, path="model/model.onnx")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "text", "of", "yours"]


class Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        assert isinstance(logits, Tensor)
        return logits


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder / "model")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / "model")
    example: Mapping[str, Tensor] = {"input_ids": torch.ones(2, 6).long(), "attention_mask": torch.ones(2, 6).long()}
    dynamic = {name: {0: "batch", 1: "length"} for name in example}
    for name in ("onnxruntime", "openvino"):
        runtime = RUNTIMES[name]()
        if runtime.available() is None:
            runtime.export(Logits(model), example, dynamic, folder / "model")
    return folder


def test_every_snippet_runs_without_archsmith(run: Path) -> None:
    shown = snippets(run, BEST)
    assert len(shown) == (3 if RUNTIMES["openvino"]().available() is None else 2)
    # One interpreter for all: importing torch and transformers is what takes the time.
    code = BLOCK + "".join(f"{one.code}\nprint(tuple(getattr(output, 'logits', output).shape))\n" for one in shown)
    done = subprocess.run([sys.executable, "-c", code], cwd=run, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["(1, 2)"] * len(shown), done.stderr


def test_a_program_is_shown_where_there_is_one(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2).eval()
    (tmp_path / "model").mkdir()
    with (tmp_path / "model" / "model.pt2").open("wb") as file:
        torch.export.save(torch.export.export(layer, (), {"input": torch.ones(1, 3)}), file)
    (shown,) = snippets(tmp_path, replace(BEST, path=None, runtime="pytorch"))
    found: dict[str, Any] = {"inputs": {"input": torch.ones(1, 3)}}
    exec(compile(shown.code.replace("model/model.pt2", str(tmp_path / "model/model.pt2")), "shown", "exec"), found)
    assert torch.allclose(found["output"], layer(torch.ones(1, 3)))


def test_the_bests_own_file_is_the_one_that_is_shown(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("model.onnx", "model.int8.onnx"):
        (tmp_path / "model" / name).touch()
    for path, shown in (("model/model.int8.onnx", "model/model.int8.onnx"), (None, "model/model.onnx")):
        assert [shown in one.title for one in snippets(tmp_path, replace(BEST, path=path))] == [True]


def test_bf16_is_asked_for_where_the_best_ran_in_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "openvino_model.xml").touch()
    for precision, hint in (("int8+bf16", "'bf16'"), ("fp32", "'f32'")):
        (one,) = snippets(tmp_path, replace(BEST, runtime="openvino", precision=precision))
        assert f"'INFERENCE_PRECISION_HINT': {hint}" in one.code


def test_a_run_that_shipped_nothing_shows_nothing(tmp_path: Path) -> None:
    assert snippets(tmp_path, BEST) == ()
