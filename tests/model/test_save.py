"""What `save` writes loads where archsmith is absent, and computes what the cut model computed."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import tiny_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertPreTrainedModel, BertTokenizerFast

from archsmith.errors import ArchsmithError, BadInput
from archsmith.model import Plan, cut, examine, plan
from archsmith.model.anatomy import Anatomy, Axis, Place
from archsmith.model.load import Loaded, demo_model, load
from archsmith.model.pretrained import load_saved
from archsmith.model.save import auto_classes, load_exported, save

ELSEWHERE = Path(__file__).with_name("load_elsewhere.py")
TWO_LAYERS = {"num_hidden_layers": 2}
OFTEN: dict[str, dict[str, int]] = {
    "bert": {},
    "gpt2": {"n_layer": 2},
    "qwen2": TWO_LAYERS,
    "t5": {"num_layers": 2},
    "vit": TWO_LAYERS,
    "modernbert": TWO_LAYERS,
    "bloom": {},
}
SELDOM: dict[str, dict[str, int]] = {"distilbert": {}, "roberta": {}, "llama": {}, "deberta-v2": {}, "mpnet": {}}
WIDTHS = ("heads", "kv_groups", "ffn")


@pytest.fixture(scope="module")
def demo() -> Path:
    try:
        return demo_model()
    except BadInput as error:
        pytest.skip(str(error))


def uneven_widths(anatomy: Anatomy, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A different subset of units of every attention and feed-forward axis."""
    return {
        name: np.sort(rng.permutation(axis.size)[: rng.integers(1, axis.size)])
        for name, axis in anatomy.axes.items()
        if axis.kind in WIDTHS and axis.size > 1
    }


def widths(anatomy: Anatomy, rng: np.random.Generator) -> Plan:
    return plan(anatomy, uneven_widths(anatomy, rng))


def half_ffn(anatomy: Anatomy, rng: np.random.Generator) -> Plan:
    return plan(anatomy, {n: range(axis.size // 2) for n, axis in anatomy.axes.items() if axis.kind == "ffn"})


def first_layers(anatomy: Anatomy, rng: np.random.Generator) -> Plan:
    """Without the first layer that may go: what is left must move down in the cache."""
    layers = [name for name, branch in anatomy.branches.items() if branch.kind == "layer"]
    return plan(anatomy, {}, layers[:1])


def everything(anatomy: Anatomy, rng: np.random.Generator) -> Plan:
    """Uneven widths, half the residual width, a layer, an attention and a feed-forward block less."""
    keep = uneven_widths(anatomy, rng)
    keep |= {n: np.arange(a.size // 2) for n, a in anatomy.axes.items() if a.kind == "residual"}
    chosen: dict[str, str] = {}
    used: set[str | None] = set()
    for kind in ("layer", "attention", "ffn"):
        for name, branch in anatomy.branches.items():
            place = branch.module if kind == "layer" else branch.layer
            if branch.kind == kind and place not in used and kind not in chosen:
                chosen[kind] = name
                used.add(place)
    return plan(anatomy, keep, list(chosen.values()))


CUTS = (widths, half_ffn, first_layers, everything)
SAID_BY_CONFIG = {"half_ffn", "first_layers"}
Saved = Mapping[tuple[str, str], Path]


def save_and_load_elsewhere(families: Mapping[str, dict[str, int]], root: Path) -> Saved:
    """(family, cut) -> its folder: saved, and loaded by a process that has no archsmith."""
    folders = {}
    for family, config in families.items():
        model, inputs = tiny_model(family, **config)
        anatomy = examine(model, inputs, np.random.default_rng(0))
        for make in CUTS:
            folder = folders[family, make.__name__] = root / f"{family}-{make.__name__}"
            folder.mkdir(parents=True)
            small = cut(model, make(anatomy, np.random.default_rng(1)))
            with torch.no_grad():
                save_file({"logits": small(**inputs)[0].clone()}, folder / "expected.safetensors")
            save(small, Loaded(model, None, family, "transformers", example=inputs), folder / "model", {"cut": family})
            save_file({key: value.contiguous() for key, value in inputs.items()}, folder / "inputs.safetensors")
            (folder / "auto").write_text(auto_classes(type(model), model.config)[0])
    command = [sys.executable, str(ELSEWHERE), str(root)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(root.with_name("modules"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    return folders


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return save_and_load_elsewhere(OFTEN, tmp_path_factory.mktemp("saved"))


def check_outputs(saved: Saved, family: str) -> None:
    for name in (make.__name__ for make in CUTS):
        expected = load_file(saved[family, name] / "expected.safetensors")["logits"]
        found = load_file(saved[family, name] / "outputs.safetensors")
        assert torch.equal(found["logits"], expected), name
        assert torch.equal(found["again"], expected), f"{name}, saved by transformers and loaded again"
        assert "cached" not in found or torch.equal(found["cached"], found["uncached"]), name


@pytest.mark.parametrize("family", OFTEN)
def test_a_saved_model_computes_the_same_bits_without_archsmith(saved: Saved, family: str) -> None:
    check_outputs(saved, family)


@pytest.mark.slow
@pytest.mark.parametrize("family", SELDOM)
def test_a_saved_model_of_any_family_computes_the_same_bits(tmp_path: Path, family: str) -> None:
    check_outputs(save_and_load_elsewhere({family: SELDOM[family]}, tmp_path / "saved"), family)


@pytest.mark.parametrize("family", OFTEN)
def test_code_is_shipped_only_where_the_config_cannot_say_it(saved: Saved, family: str) -> None:
    for name in (make.__name__ for make in CUTS):
        config = json.loads((saved[family, name] / "model/config.json").read_text())
        has_code = (saved[family, name] / "model/modeling_archsmith.py").exists()
        assert has_code == ("archsmith" in config) == ("auto_map" in config), name
        # ModernBERT's first layer has no norm before attention, and T5's encoder may not have fewer layers than its
        # decoder (the cache); BLOOM's feed-forward is always four times as wide as its stream.
        if family not in ("modernbert", "t5", "bloom") or (name == "half_ffn" and family != "bloom"):
            assert has_code == (name not in SAID_BY_CONFIG), name


def test_the_kinds_of_the_layers_that_stay_are_said_by_the_config(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """ModernBERT alternates global and local attention: without its layer 2 of 4, two local ones follow each other."""
    model, inputs = tiny("modernbert", num_hidden_layers=4)
    anatomy = examine(model, inputs, np.random.default_rng(0))
    third = next(name for name, b in anatomy.branches.items() if b.kind == "layer" and b.module.endswith("layers.2"))
    small = cut(model, plan(anatomy, {}, [third]))
    save(small, Loaded(model, None, "modernbert", "transformers", example=inputs), tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert "archsmith" not in config and config["num_hidden_layers"] == 3
    assert config["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention"]


def test_a_layer_is_known_again_by_what_was_not_skipped_in_it(saved: Saved) -> None:
    """The local layer stays, its attention skipped: a config with this layer's type alone cannot carry the model."""
    config = json.loads((saved["modernbert", "everything"] / "model/config.json").read_text())
    assert config["archsmith"]["kept"] == {"model.layers": [1]}
    assert config["layer_types"] == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize("family", ["bert", "qwen2"])
def test_own_results_load_without_running_their_code(saved: Saved, family: str) -> None:
    for folder in (saved[family, make.__name__] for make in CUTS):
        inputs = load_file(folder / "inputs.safetensors")
        code = folder / "model/modeling_archsmith.py"
        if code.exists():
            code.write_text("raise SystemExit('the code of the folder was run')")
        for model in (load(str(folder / "model")).model, load_saved(folder / "model")):
            with torch.no_grad():
                assert torch.equal(model(**inputs)[0], load_file(folder / "expected.safetensors")["logits"])


def test_without_trust_a_rebuilt_model_is_refused_rather_than_loaded_wrong(saved: Saved) -> None:
    """The class of transformers itself would fill what was skipped with random weights and only warn."""
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModelForCausalLM.from_pretrained(
            saved["qwen2", "everything"] / "model", trust_remote_code=False
        )


def test_a_result_can_be_cut_and_saved_again(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = tiny("bert", num_hidden_layers=2)
    rng = np.random.default_rng(3)
    for step in ("one", "two"):
        anatomy = examine(model, inputs, rng)
        keep = {n: range(1, a.size) for n, a in anatomy.axes.items() if a.kind in WIDTHS and "layer.1" not in n}
        small = cut(model, plan(anatomy, keep))
        save(small, Loaded(model, None, step, "transformers", example=inputs), tmp_path / step)
        model = load(str(tmp_path / step)).model
        with torch.no_grad():
            assert torch.equal(model(**inputs)[0], small(**inputs)[0])
    record = json.loads((tmp_path / "two/config.json").read_text())["archsmith"]
    assert record["shapes"]["bert.encoder.layer.0.intermediate.dense.weight"] == [46, 32]


def test_tied_weights_are_written_once_and_stay_tied(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = tiny("qwen2")
    save(model, Loaded(model, None, "qwen2", "transformers", example=inputs), tmp_path / "model")
    with safe_open(tmp_path / "model/model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118  (not a mapping)
    back: Any = load(str(tmp_path / "model")).model
    assert back.lm_head.weight is back.model.embed_tokens.weight


def test_a_resized_buffer_comes_back(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = tiny("bert")
    table = model.bert.embeddings
    table.position_ids = torch.arange(20).flip(0)[None]  # not persistent: the constructor would make 64 in order
    table.register_buffer("scale", torch.full((3,), 0.5))
    save(model, Loaded(model, None, "bert", "transformers", example=inputs), tmp_path / "model")
    back: Any = load(str(tmp_path / "model")).model
    assert torch.equal(back.bert.embeddings.position_ids, table.position_ids)
    assert torch.equal(back.bert.embeddings.scale, table.scale)


def test_a_sentence_model_keeps_its_pooling(demo: Path, tmp_path: Path) -> None:
    loaded = load(str(demo))
    anatomy_free: Any = loaded.model
    del anatomy_free.encoder.layer[2]
    save(anatomy_free, loaded, tmp_path / "model", {"layers": 5})
    back = load(str(tmp_path / "model"))
    assert back.kind == "sentence" and back.pooling == loaded.pooling
    assert back.tokenizer("one two").input_ids == loaded.tokenizer("one two").input_ids
    assert len(back.model.encoder.layer) == 5
    sentence_transformers = pytest.importorskip("sentence_transformers", reason="not a dependency; checks our folder")
    encoder = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu")
    vector = encoder.encode(["what is cut"], convert_to_tensor=True)
    inputs = back.tokenizer(["what is cut"], return_tensors="pt")
    with torch.no_grad():
        ours = nn.functional.normalize(back.model(**inputs)[0].mean(dim=1), dim=-1)
    assert torch.allclose(vector, ours, atol=1e-6)


class Convolutions(nn.Module):
    """Not of transformers: saved as weights and an exported program."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 4)

    def forward(self, image: Tensor) -> Tensor:
        x_BCHW = torch.relu(self.norm(self.stem(image)))
        return self.head(x_BCHW.mean(dim=(2, 3)))


def test_any_module_is_saved_as_weights_and_a_program(tmp_path: Path) -> None:
    model = Convolutions().eval()
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    save(model, Loaded(model, None, "x", "module", example={"image": image}), tmp_path / "model")
    back = load_exported(tmp_path / "model/model.pt2", allow_code=True)
    more = image.repeat(3, 1, 1, 1)
    with torch.no_grad():
        assert torch.allclose(back(image=more), model(more), atol=1e-6)
    assert set(load_file(tmp_path / "model/model.safetensors")) == set(model.state_dict())


class Mine(BertPreTrainedModel):
    """A class of the user's own on top of transformers, which no config can say."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.head = nn.Linear(config.hidden_size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])


def test_a_class_that_derives_from_transformers_is_saved_as_a_module(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
    model = Mine(config).eval()
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), vocab_file=str(vocabulary))
    ids = torch.arange(24).reshape(2, 12)
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    save(model, Loaded(model, tokenizer, "x", "module", example=example), tmp_path / "model")
    back = load_exported(tmp_path / "model/model.pt2", allow_code=True)
    with torch.no_grad():
        assert torch.allclose(back(**example), model(**example), atol=1e-6)
    assert (tmp_path / "model/tokenizer.json").is_file() and not (tmp_path / "model/config.json").exists()


def test_an_exported_program_is_not_run_unasked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="runs only when allowed"):
        load_exported(tmp_path / "model.pt2")
    (tmp_path / "model.pt2").write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"torch\.export program"):
        load_exported(tmp_path / "model.pt2", allow_code=True)


def test_the_original_folder_is_never_written(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = tiny("bert")
    save(model, Loaded(model, None, "bert", "transformers", example=inputs), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BadInput, match="never written over"):
        save(model, load(str(tmp_path)), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("most_bytes", [10, 20_000])  # not even architecture.json, and not the weights
def test_a_full_disk_gets_one_line(tiny: Callable[..., Any], tmp_path: Path, most_bytes: int) -> None:
    resource = pytest.importorskip("resource", reason="file size limits stand for a full disk")
    model, inputs = tiny("bert")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        with pytest.raises(BadInput, match="the result can be written"):
            save(model, Loaded(model, None, "bert", "transformers", example=inputs), tmp_path, {"layers": [1, 2, 3]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_module_that_is_no_stub_is_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    model, inputs = tiny("bert")
    loaded = Loaded(model, None, "bert", "transformers", example=inputs)
    model.bert.encoder.layer[0].intermediate.dense = nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 48))
    with pytest.raises(ArchsmithError, match="stubs only"):
        save(model, loaded, tmp_path / "model")


def test_attention_of_torch_with_fewer_heads_comes_back(tmp_path):
    """Siglip pools with `nn.MultiheadAttention`, which cannot run with heads narrower than its input: Heads then."""
    config = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, image_size=16, patch_size=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.SiglipVisionModel(config).eval()
        inputs = {"pixel_values": torch.randn(2, 3, 16, 16)}
    rows = np.arange(32).reshape(4, 8)  # of each head in queries; keys and values follow
    fused = np.concatenate([rows, rows + 32, rows + 64], axis=1)
    name = "head.attention"
    places = (Place(f"{name}.in_proj_weight", 0, fused), Place(f"{name}.in_proj_bias", 0, fused))
    places += (Place(f"{name}.out_proj.weight", 1, rows),)
    axis = Axis("pool", "heads", 4, places, integers=((name, "num_heads"),))
    small = cut(model, plan(Anatomy({"pool": axis}, {}, ()), {"pool": [0, 2]})).eval()
    assert type(small.head.attention).__name__ == "Heads" and type(model.head.attention) is nn.MultiheadAttention
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.head.attention.out_proj.weight[:, rows[[1, 3]].ravel()] = 0
        expected, found = masked(**inputs).pooler_output, small(**inputs).pooler_output
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    save(small, Loaded(model, None, "siglip", "transformers", example=inputs, files={}), tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(load_saved(tmp_path / "model")(**inputs).pooler_output, found)
