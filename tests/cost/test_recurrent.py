"""Recurrent layers and hashed runs of tokens in exported files: right for any length and batch; and one operator, not a
step for each place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from archsmith.build import Signal, network, planned
from archsmith.build.layers import Bag, texts_with
from archsmith.cost import RUNTIMES

DYNAMIC = {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
SHAPES = ((1, 5), (3, 30), (2, 64))


class Declared(nn.Module):
    """A recurrent layer of ours, which reads what padding there is."""

    def __init__(self, kind: str, options: dict[str, object], pool: str) -> None:
        super().__init__()
        parts = [{"embedding": {"rows": 50, "out": 8}}, {kind: {"out": 6, **options}}, pool, {"linear": {"out": 2}}]
        self.inner = network(planned(parts, Signal((64,), tokens=True)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        out: Tensor = self.inner(input_ids, attention_mask)
        return out


class Theirs(nn.Module):
    """Torch's own layers: several, in both directions, without biases, places first, all outputs used."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.lstm = nn.LSTM(8, 6, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(12, 6, bias=False)
        self.out = nn.Linear(6, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        both, (h, c) = self.lstm(self.table(input_ids))
        one, last = self.gru((both * attention_mask[..., None]).transpose(0, 1))
        out: Tensor = self.out(one[-1] + h[-1] + c[0] + last[0])
        return out


class Hashed(nn.Module):
    """Runs of tokens, hashed in whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        reads = {
            "concat": [
                {"embedding": {"rows": 50, "out": 8}},
                {"ngrams": {"rows": 65_536, "out": 4, "lengths": [2, 3]}},
            ]
        }
        bag = {"bag": {"rows": 262_144, "out": 4}}
        both = {"concat": [[reads, "mean"], bag]}
        self.inner = network(planned([both, {"linear": {"out": 2}}], Signal((64,), tokens=True)))
        ids, mask = rows((8, 32), 7).values()
        layer = next(part for part in self.inner.modules() if isinstance(part, Bag))
        layer.know(*texts_with([(ids, mask != 0)], layer.longest, layer.rows))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        out: Tensor = self.inner(input_ids, attention_mask)
        return out


MODELS = {
    "n-grams": Hashed,
    "lstm both ways": lambda: Declared("lstm", {"both": True}, "max"),
    "two grus": lambda: Declared("gru", {"depth": 2}, "last"),
    "torch's own": Theirs,
}


def rows(shape: tuple[int, int], seed: int) -> dict[str, Tensor]:
    """Tokens, the second row of which ends early."""
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, dtype=np.int64)
    mask[1:2, shape[1] // 2 :] = 0
    return {"input_ids": torch.from_numpy(rng.integers(0, 50, shape)), "attention_mask": torch.from_numpy(mask)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_files_agree_at_every_length(tmp_path: Path, name: str, runtime: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MODELS[name]().eval()
    before = [type(part) for part in module.modules()]
    used = RUNTIMES[runtime]()
    artifact = used.export(module, rows((2, 16), 0), DYNAMIC, tmp_path)
    session = used.open(artifact, 1)
    for seed, shape in enumerate(SHAPES, 1):
        given = rows(shape, seed)
        with torch.no_grad():
            wanted = module(**given).numpy()
        found = session({name: value.numpy() for name, value in given.items()})
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert [type(part) for part in module.modules()] == before
    if runtime == "onnxruntime" and name != "n-grams":
        kinds = [node.op_type for node in onnx.load(artifact.path).graph.node]
        assert sum(kind in ("LSTM", "GRU") for kind in kinds) in (2, 5) and "Scan" not in kinds and len(kinds) < 120


@pytest.mark.parametrize("name", ["lstm both ways", "two grus", "n-grams"])
def test_exported_programs_have_no_operator_of_ours_and_any_length(tmp_path: Path, name: str) -> None:
    module, length = MODELS[name]().eval(), torch.export.Dim("length", min=2, max=64)
    shapes = {each: {0: torch.export.Dim("batch"), 1: length} for each in DYNAMIC}
    program = torch.export.export(module, (), kwargs=rows((2, 16), 0), dynamic_shapes=shapes)
    assert not [node for node in program.graph.nodes if "archsmith" in str(node.target)]
    torch.export.save(program, tmp_path / "model.pt2")
    back = torch.export.load(tmp_path / "model.pt2").module()
    for seed, shape in enumerate(SHAPES[1:], 1):
        given = rows(shape, seed)
        with torch.no_grad():
            np.testing.assert_allclose(back(**given).numpy(), module(**given).numpy(), atol=1e-5)
