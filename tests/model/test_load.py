"""What `load` takes, what it refuses and in which words; nothing in a folder is run or changed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from archsmith.errors import BadInput
from archsmith.model.load import Loaded, demo_model, load
from archsmith.model.save import save

FACTORY = """
import torch
def make():
    return torch.nn.Linear(3, 2).double(), torch.ones(1, 3)
def broken():
    raise RuntimeError("no weights today")
def alone():
    return torch.nn.Linear(3, 2)
"""


class Malicious:
    """Unpickled, it makes a file: the proof that something was run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.fixture(scope="module")
def folder(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT classifier as a user has it."""
    path = tmp_path_factory.mktemp("original")
    tiny("bert").model.save_pretrained(path)
    return path


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def edit_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def digests(folder: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def test_a_folder_is_loaded_as_it_is_and_stays_bit_identical(folder: Path, tiny: Callable[..., Any]) -> None:
    model, inputs = tiny("bert")
    before = digests(folder)
    loaded = load(str(folder))
    assert digests(folder) == before
    assert loaded.kind == "transformers" and loaded.tokenizer is None and not loaded.model.training
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs)[0], model(**inputs)[0])
        assert loaded.example is not None and loaded.model(**loaded.example)[0].shape == (2, 3)


def test_half_precision_weights_become_fp32(tiny: Callable[..., Any], tmp_path: Path) -> None:
    tiny("bert").model.half().save_pretrained(tmp_path)
    assert {p.dtype for p in load(str(tmp_path)).model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["t5", "vit", "gpt2"])
def test_example_inputs_run(tiny: Callable[..., Any], tmp_path: Path, family: str) -> None:
    tiny(family).model.save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    assert loaded.example is not None
    with torch.no_grad():
        assert loaded.model(**loaded.example)[0].isfinite().all()


def missing_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def list_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def undecodable_config(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x00")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_off_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def half_downloaded(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def index_without_places(folder: Path) -> None:
    half_downloaded(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": [1]}))
    (folder / "model-00001-of-00002.safetensors").unlink()


def garbage_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)


def other_shapes(folder: Path) -> None:
    edit_config(folder, intermediate_size=50)


def unknown_type(folder: Path) -> None:
    edit_config(folder, model_type="perceptron9000")


def unknown_class(folder: Path) -> None:
    edit_config(folder, architectures=["BertForMindReading"])


def class_that_is_no_model(folder: Path) -> None:
    edit_config(folder, architectures=["AutoTokenizer"])


def more_layers_than_weights(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=5)


def impossible_heads(folder: Path) -> None:
    edit_config(folder, num_attention_heads=5)


def own_code(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoModel": "modeling_x.X"})
    (folder / "modeling_x.py").write_text("raise SystemExit('the code of the folder was run')")


def corrupt_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def strange_pooling(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "1"}]')


def broken_pooling(folder: Path) -> None:
    (folder / "modules.json").write_text("{")


def nameless_pooling(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"path": ""}]')


def special_attribute(folder: Path) -> None:
    edit_config(folder, archsmith={"attributes": [["", "__class__", 1]]})


def quantised(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (quantised, "full precision.*gptq.*dequantize"),
        (missing_config, "has a config.json"),
        (broken_config, "the file holds JSON"),
        (list_config, "holds a JSON object"),
        (undecodable_config, "the file holds JSON"),
        (no_weights, r"weights in \*\.safetensors"),
        (cut_off_weights, "a whole safetensors file.*Fetch it again"),
        (index_without_places, r"weights in \*\.safetensors"),
        (half_downloaded, "1 of 2 missing at .*model-00002-of-00002.safetensors.*Fetch it again"),
        (garbage_weights, "a whole safetensors file"),
        (other_shapes, "shapes|can load"),
        (unknown_type, "perceptron9000"),
        (unknown_class, "BertForMindReading"),
        (class_that_is_no_model, "AutoTokenizer"),
        (more_layers_than_weights, "every weight of BertForSequenceClassification is in its file"),
        (impossible_heads, "can load"),
        (own_code, "runs only when allowed.*--allow-code"),
        (corrupt_tokenizer, "tokenizer files load"),
        (strange_pooling, "Pooling"),
        (broken_pooling, "sentence-embedding model is"),
        (nameless_pooling, "sentence-embedding model is"),
        (special_attribute, "cannot be special"),
    ],
)
def test_a_bad_folder_gets_one_line(own: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(own)
    before = digests(own)
    with pytest.raises(BadInput, match=words) as caught:
        load(str(own))
    assert "\n" not in str(caught.value) and str(own) in str(caught.value)
    assert digests(own) == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/no/such/folder", "a model is a directory"),
        ("./nothing-here", "a model is a directory"),
        ("a b c", "a model is a directory"),
        ("nobody/no-such-model", "no such directory, and the hub says"),
        (__file__, "found a file"),
        ("my_factory:make", "runs only when allowed"),
    ],
)
def test_a_bad_source_gets_one_line(source: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        load(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("my_factory:broken", "RuntimeError: no weights today"),
        ("my_factory:alone", r"returns \(module, example inputs"),
        ("my_factory:missing", "AttributeError"),
        ("no_such_module_at_all:make", "ModuleNotFoundError"),
    ],
)
def test_a_bad_factory_gets_one_line(source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_factory.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=words):
        load(source, allow_code=True)


def test_a_factory_gives_its_module_and_named_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_good_factory.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    loaded = load("my_good_factory:make", allow_code=True)
    assert loaded.kind == "module" and loaded.example is not None and list(loaded.example) == ["input"]
    assert isinstance(loaded.model, nn.Linear) and loaded.model.weight.dtype == torch.float32


@pytest.mark.parametrize("form", ["torch.save", "bare pickle"])
def test_a_malicious_checkpoint_runs_nothing(own: Path, tmp_path: Path, form: str) -> None:
    trace = tmp_path / "was-run"
    weights = own / "pytorch_model.bin"
    (own / "model.safetensors").unlink()
    if form == "torch.save":
        torch.save({"x": Malicious(trace)}, weights)
    else:
        weights.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    with pytest.raises(BadInput, match="a pickle file may hold tensors only"):
        load(str(own))
    assert not trace.exists()
    with contextlib.suppress(RuntimeError):  # torch runs a bare pickle, then finds that it is no checkpoint
        torch.load(weights, weights_only=False)
    assert trace.exists(), "the trap must work, or the test proves nothing"


def test_a_pickle_of_tensors_loads(own: Path, tiny: Callable[..., Any]) -> None:
    (own / "model.safetensors").unlink()
    model, inputs = tiny("bert")
    torch.save(model.state_dict(), own / "pytorch_model.bin")
    with torch.no_grad():
        assert torch.equal(load(str(own)).model(**inputs)[0], model(**inputs)[0])


def test_own_code_runs_when_allowed(own: Path, tiny: Callable[..., Any]) -> None:
    edit_config(own, auto_map={"AutoModelForSequenceClassification": "modeling_x.Mine"})
    code = (
        "from transformers import BertForSequenceClassification\nclass Mine(BertForSequenceClassification):\n    pass\n"
    )
    (own / "modeling_x.py").write_text(code)
    assert type(load(str(own), allow_code=True).model).__name__ == "Mine"


@pytest.mark.parametrize(
    ("task", "family", "words"),
    [
        ("text-classification", "gpt2", "every weight of GPT2ForSequenceClassification is in its file"),
        ("text-classification", "vit", "can load"),
    ],
)
def test_a_task_needs_a_model_trained_for_it(
    tiny: Callable[..., Any], tmp_path: Path, task: str, family: str, words: str
) -> None:
    tiny(family).model.save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=words):
        load(str(tmp_path), task=task)


def test_a_sentence_model_comes_with_its_pooling() -> None:
    try:
        path = demo_model()
    except BadInput as error:
        pytest.skip(str(error))
    loaded = load(str(path))
    assert loaded.kind == "sentence" and loaded.pooling is not None
    assert (loaded.pooling.mode, loaded.pooling.normalise, loaded.pooling.max_length) == ("mean", True, 256)
    assert "tokenizer.json" in loaded.files


def test_an_absent_demo_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(BadInput, match=r"archsmith\[demo\]"):
        demo_model()


def test_a_tokenizer_travels_with_the_result(shared: Callable[[str], Path], tmp_path: Path) -> None:
    source = shared("models/minilm-sst2")
    before = digests(source)
    loaded = load(str(source))
    save(loaded.model, loaded, tmp_path / "model")
    back: Loaded = load(str(tmp_path / "model"))
    text = "a gripping film"
    assert loaded.tokenizer is not None and back.tokenizer is not None
    assert back.tokenizer(text).input_ids == loaded.tokenizer(text).input_ids
    assert digests(source) == before


def test_an_index_beside_a_whole_file_is_not_asked(own: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (own / "model.safetensors.index.json").write_text(json.dumps(index))
    assert load(str(own)).model is not None
