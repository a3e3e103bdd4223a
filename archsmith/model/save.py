"""A cut model on disk, in a form that loads anywhere.

A transformers model becomes model.safetensors, config.json, its tokenizer's files, architecture.json and, where the
config alone cannot say what was cut, one modeling_archsmith.py for `trust_remote_code=True`. Any other module becomes
model.safetensors and a `torch.export` program, model.pt2. Nothing written holds a pickle of ours; what was written is
loaded back and compared before `save` returns.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from archsmith.errors import ArchsmithError, BadInput
from archsmith.model import modeling_archsmith, stubs
from archsmith.model.difference import base_class, difference, fitted
from archsmith.model.load import Loaded
from archsmith.model.pretrained import load_saved, without_record
from archsmith.model.running import deviation
from archsmith.model.sentence import write_pooling
from archsmith.model.wide import computed_wide

CODE_FILE = "modeling_archsmith.py"
INDEX = "model.safetensors.index.json"
SHARD = 1_000_000_000  # bytes of a file of weights, at most
OWN_TYPE = "archsmith_"
TOLERANCE = 1e-5  # of the output's scale: kernels may round differently for another memory layout


def save(
    model: nn.Module,
    loaded: Loaded,
    folder: Path | str,
    architecture: Mapping[str, Any] | None = None,
    example: Mapping[str, Tensor] | None = None,
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
) -> None:
    """Write `model`, a cut copy of `loaded.model`, with all that belongs to it into `folder` (made if absent).

    `architecture`: readable JSON, kept as architecture.json. `example`: keyword inputs for the comparison, by default
    `loaded.example`; `dynamic`: which of their dimensions vary, by default the first. Raises `BadInput` where the
    folder is the model's own or cannot be written, and `ArchsmithError` where what was written does not compute what
    `model` computes.
    """
    folder = Path(folder)
    if folder.resolve() in {path.parent.resolve() for path in loaded.files.values()} | {Path(loaded.source).resolve()}:
        raise BadInput("a result is never written over the original model", "", str(folder), "name another folder")
    example = loaded.example if example is None else example
    was_training = model.training
    model.eval()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(architecture or {}, indent=2, sort_keys=True)
        (folder / "architecture.json").write_text(text + "\n", encoding="utf-8")
        if base_class(model) is None:
            _save_module(model, loaded, folder, example, dynamic or {})
        else:
            _save_transformers(model, loaded, folder, example)
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk in its own error
        raise BadInput("the result can be written", str(error), str(folder)) from None
    finally:
        model.train(was_training)


def load_exported(path: Path | str, *, allow_code: bool = False) -> nn.Module:
    """The module of a model.pt2 that `save` wrote; call it with the keyword inputs it was exported with.

    A .pt2 file is a program, and torch's reader evaluates expressions in it and may unpickle parts of it: hence
    `allow_code`, to be given for files you trust. Raises `BadInput` without it and for a file that is no program.
    """
    if not allow_code:
        raise BadInput("an exported program is code and runs only when allowed", str(path), "", "give allow_code")
    try:
        return torch.export.load(path).module()
    except Exception as error:  # torch raises whatever the broken part of the archive runs into
        raise BadInput("the file is a torch.export program", f"{type(error).__name__}: {error}", str(path)) from None


def _save_transformers(model: nn.Module, loaded: Loaded, folder: Path, example: Mapping[str, Tensor] | None) -> None:
    """Try the config that says most first; the first one that loads back to the same outputs stays."""
    base = base_class(model)
    assert base is not None
    _copy_companions(model, loaded, folder)
    if loaded.pooling is not None:
        write_pooling(model, loaded.pooling, folder)
    config: Any = model.config
    original = base.config_class.from_dict(without_record(config.to_dict()))  # type: ignore[attr-defined]
    for config in (*fitted(base, original, model), original):
        problem = _write_and_compare(model, base, config, folder, example)
        if problem is None:
            return
    raise ArchsmithError(f"a saved model computes what the cut model computes; {problem} at {folder}")


def _write_and_compare(
    model: nn.Module, base: type[nn.Module], config: Any, folder: Path, example: Mapping[str, Tensor] | None
) -> str | None:
    """Write the model on top of this config; why it does not come back the same, or None.

    A config may be unable to carry a model: ModernBERT makes its rotary tables from its list of layer types, and a
    model without its local layers still holds theirs.
    """
    record = difference(base, config, model)
    buffers: dict[str, Any] = record.get("buffers", {})
    for _ in range(2):  # the second time with the buffers that the constructor could not make
        _write(model, base, config, record | ({"buffers": buffers} if buffers else {}), folder)
        try:
            back = load_saved(folder)
        except BadInput as error:
            return str(error)
        wrong = _wrong_buffers(model, back)
        if not wrong:
            break
        buffers = {**buffers, **wrong}
    return _disagreement(model, back, example)


def _write(model: nn.Module, base: type[nn.Module], config: Any, record: Mapping[str, Any], folder: Path) -> None:
    """Weights, config.json, and the modeling file where there is something to rebuild."""
    write_weights(_state(model, record.get("buffers", {})), folder)
    values = config.to_dict() | {"architectures": [base.__name__], "transformers_version": transformers.__version__}
    values |= {"dtype": str(next(p.dtype for p in model.parameters() if p.is_floating_point())).removeprefix("torch.")}
    values.pop("_name_or_path", None)
    (folder / CODE_FILE).unlink(missing_ok=True)
    if record:
        # Under its own type no loader takes it for an ordinary model of this class and fills the gaps at random.
        model_type = f"{OWN_TYPE}{config.model_type}"
        autos = auto_classes(base, config)
        module = CODE_FILE.removesuffix(".py")
        values |= {"archsmith": dict(record), "model_type": model_type}
        values["auto_map"] = {"AutoConfig": f"{module}.{type(config).__name__}"}
        values["auto_map"] |= dict.fromkeys(autos, f"{module}.{base.__name__}")
        (folder / CODE_FILE).write_text(shipped_code(base, config, autos[0]), encoding="utf-8")
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def _state(model: nn.Module, extra_buffers: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor once: of tied ones the first name, since loading ties them again."""
    named = dict(model.state_dict(keep_vars=True))
    named |= {name: buffer for name, buffer in model.named_buffers() if name in extra_buffers}
    tied = list(getattr(model, "all_tied_weights_keys", None) or getattr(model, "_tied_weights_keys", None) or [])
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in named.items():
        is_tie = any(name == key or re.search(key, name) for key in tied)
        if not (id(tensor) in seen and is_tie):
            state[name] = tensor.detach()
        seen.add(id(tensor))
    return state


def write_weights(state: Mapping[str, Tensor], folder: Path) -> None:
    """model.safetensors, or shards of at most `SHARD` with their index, as transformers names them."""
    for old in (*folder.glob("model*.safetensors"), folder / INDEX):
        old.unlink(missing_ok=True)
    split = split_torch_state_dict_into_shards(dict(state), max_shard_size=SHARD)
    for file, names in split.filename_to_tensors.items():
        own = _copies({name: state[name] for name in names})  # of one shard at a time
        save_file(own, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _copies(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no storage, as a file of safetensors wants them."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}


def auto_classes(base: type[nn.Module], config: Any) -> list[str]:
    """The names of the Auto classes that a class belongs to, the most telling first.

    >>> auto_classes(transformers.BertForSequenceClassification, transformers.BertConfig())
    ['AutoModelForSequenceClassification']
    """
    found = []
    for name, auto in vars(modeling_auto).items():
        mapping = getattr(auto, "_model_mapping", None) if re.fullmatch(r"AutoModel(For\w+)?", name) else None
        names = mapping._model_mapping.get(config.model_type, ()) if mapping is not None else ()
        if base.__name__ in ((names,) if isinstance(names, str) else names):
            found.append(name)
    return sorted(found, key=lambda name: (name == "AutoModelForPreTraining", name)) or ["AutoModel"]


def shipped_code(base: type[nn.Module], config: Any, auto: str) -> str:
    """The modeling file for one class: the rebuilding code of this package, its stubs, the class and its config."""
    stub_code = inspect.getsource(stubs).split("\nclass ", 1)[1]
    code = inspect.getsource(modeling_archsmith)
    line = "from archsmith.model.stubs import Bias, Heads, Skip, Taking, taking\n"
    assert line in code
    code = code.replace(line, f"import inspect\n\nimport transformers\n\n\nclass {stub_code.rstrip()}\n\n")
    name, config_name = base.__name__, type(config).__name__
    return f"""{code}

class {config_name}(transformers.{config_name}):
    model_type = "{OWN_TYPE}{config.model_type}"


class {name}(Smaller, transformers.{name}):
    config_class = {config_name}


{config_name}.register_for_auto_class()
{name}.register_for_auto_class("{auto}")
"""


def _copy_companions(model: nn.Module, loaded: Loaded, folder: Path) -> None:
    """Tokenizer and processor files as they are."""
    for name, path in loaded.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if not loaded.files and loaded.tokenizer is not None and hasattr(loaded.tokenizer, "save_pretrained"):
        loaded.tokenizer.save_pretrained(folder)
    generation: Any = getattr(model, "generation_config", None)
    if hasattr(generation, "save_pretrained"):
        generation.save_pretrained(folder)


def _wrong_buffers(model: nn.Module, back: nn.Module) -> dict[str, Any]:
    """Buffers that did not come back as they were -> what the record says of them."""
    returned = dict(back.named_buffers())
    return {
        name: [list(buffer.shape), str(buffer.dtype).removeprefix("torch.")]
        for name, buffer in model.named_buffers()
        if name not in returned or not _same(buffer, returned[name])
    }


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _disagreement(model: nn.Module, back: nn.Module, example: Mapping[str, Tensor] | None) -> str | None:
    """Why the two models are not the same, or None."""
    returned = dict(back.named_parameters(remove_duplicate=False))
    for name, tensor in model.named_parameters(remove_duplicate=False):
        if name not in returned or not _same(tensor, returned[name]):
            return f"parameter {name} came back different"
    if len(returned) != len(dict(model.named_parameters(remove_duplicate=False))):
        return "there are more parameters than before"
    if example is None:
        return None
    with torch.no_grad(), computed_wide(model):
        expected = leaves(model(**example))
        try:
            found = leaves(back(**example))
        except Exception as error:  # forward reads the config too, and raises whatever it misses there
            return f"the loaded model does not run on the example ({type(error).__name__}: {error})"
    return None if deviation(found, expected) <= TOLERANCE else "the outputs on the example differ"


def leaves(output: Any) -> list[Tensor]:
    """The floating-point tensors of a module's output, however it is nested; caches are left out."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, Mapping):
        return [leaf for value in output.values() for leaf in leaves(value)]
    return [leaf for value in output for leaf in leaves(value)] if isinstance(output, list | tuple) else []


def _save_module(
    model: nn.Module,
    loaded: Loaded,
    folder: Path,
    example: Mapping[str, Tensor] | None,
    dynamic: Mapping[str, Mapping[int, str]],
) -> None:
    """Weights, tokenizer and the exported program, whose inputs vary where `dynamic` says and the module allows it."""
    save_file(_copies(_state(model, {})), folder / "model.safetensors", metadata={"format": "pt"})
    if not example:
        raise BadInput("a module is exported with example inputs", "none", type(model).__name__, "give `example`")
    _copy_companions(model, loaded, folder)
    first: dict[int, str] = {0: "batch"}
    shapes = {
        name: {dim: torch.export.Dim.AUTO for dim in dynamic.get(name, first) if dim < tensor.dim()}
        for name, tensor in example.items()
    }
    program = torch.export.export(model, (), dict(example), dynamic_shapes=shapes)
    with (folder / "model.pt2").open("wb") as file:  # a full disk is then Python's own error, with its number
        torch.export.save(program, file)
    back = load_exported(folder / "model.pt2", allow_code=True)
    state = load_file(folder / "model.safetensors")
    with torch.no_grad():
        same = deviation(leaves(back(**example)), leaves(model(**example))) <= TOLERANCE
    if not same or any(name not in model.state_dict() for name in state):
        raise ArchsmithError(f"a saved model computes what the cut model computes; the export differs at {folder}")
