"""A model out of a transformers folder: its class, every weight from its files, its tokenizer, inputs it accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.model.modeling_archsmith import Smaller

LARGE = 1_500_000_000  # bytes of weights from which on they are computed with in fp32, but not held in it
FORMS = "a model is a directory, a hub id, or package.module:factory"
AGAIN = "fetch it again: a download that stopped leaves such files"
INDEX = "model.safetensors.index.json"
AUTO_CLASS = {
    "text-classification": "AutoModelForSequenceClassification",
    "sentence-embedding": "AutoModel",
    "image-classification": "AutoModelForImageClassification",
    "language-modelling": "AutoModelForCausalLM",
}


def load_saved(folder: Path | str) -> nn.Module:
    """A transformers model that `save` wrote, rebuilt by the code of this package; code in the folder is not run."""
    folder = Path(folder)
    with quiet():
        return pretrained(folder, read_json(folder / "config.json"), allow_code=False, task=None, as_saved=True).eval()


def without_record(config: Mapping[str, Any]) -> dict[str, Any]:
    """Config values without what `save` wrote into them, so that the class of transformers itself takes them."""
    return {name: value for name, value in config.items() if name not in ("archsmith", "auto_map", "model_type")}


def pretrained(
    folder: Path, config_values: Mapping[str, Any], allow_code: bool, task: str | None, as_saved: bool = False
) -> nn.Module:
    """The model of a folder, every weight read from its files; in fp32 where it is not large, or as it was saved."""
    safe = _check_weights(folder)
    own = "archsmith" in config_values
    kind: Any = _class_named(folder, config_values) if own else None
    try:
        if kind is None:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=allow_code)
        else:  # its code lies in the folder as well, but is never run: this package's own rebuilds it
            config = kind.config_class.from_dict(without_record(config_values))
            config.archsmith = config_values["archsmith"]
            kind = type(kind.__name__, (Smaller, kind), {"__module__": __name__})
    except Exception as error:  # transformers raises whatever its config classes raise
        raise _unknown(folder, config_values, error) from None
    kind = kind or _model_class(folder, config, config_values, task)
    code = {"trust_remote_code": allow_code} if kind.__name__.startswith("Auto") else {}
    try:
        model, report = kind.from_pretrained(
            folder,
            config=config,
            dtype="auto" if as_saved or is_large(folder) else torch.float32,
            use_safetensors=safe,
            weights_only=True,
            output_loading_info=True,
            local_files_only=True,
            **code,
        )
    except SafetensorError as error:
        raise BadInput("the weights are a whole safetensors file", str(error), str(folder), AGAIN) from None
    except Exception as error:  # a wrong config or file surfaces as any exception of the class
        raise _unknown(folder, config_values, error) from None
    _refuse_untrained(model, report, folder)
    assert isinstance(model, nn.Module)
    return model


def is_large(folder: Path) -> bool:
    """Whether the weights stay in the precision of their files, since in fp32 they might not fit."""
    return sum(path.stat().st_size for ending in ("*.safetensors", "*.bin") for path in folder.glob(ending)) > LARGE


def _check_weights(folder: Path) -> bool:
    """True for whole safetensors files, False for a pickle that holds tensors only; anything else is refused."""
    safe = sorted(folder.glob("*.safetensors"))
    if (folder / INDEX).exists() and not (folder / "model.safetensors").exists():
        places = read_json(folder / INDEX).get("weight_map")
        named = set(map(str, places.values() if isinstance(places, dict) else ()))
        absent = sorted(named - {path.name for path in safe})
        if absent:
            value = f"{len(absent)} of {len(named)} missing"
            raise BadInput(f"a folder has every file that {INDEX} names", value, str(folder / absent[0]), AGAIN)
    for path in safe:
        try:
            with safe_open(path, framework="pt") as file:
                list(file.keys())
        except (SafetensorError, OSError) as error:
            raise BadInput("the weights are a whole safetensors file", str(error), str(path), AGAIN) from None
    if safe:
        return True
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if not pickles:
        raise BadInput("a model directory has its weights in *.safetensors", "none", str(folder), FORMS)
    for path in pickles:
        try:
            torch.load(path, map_location="meta", weights_only=True)
        except Exception as error:  # an unpickler fails in any way on a hostile file
            law = "a pickle file may hold tensors only"
            reason = f"{type(error).__name__}: {str(error).split('. ')[0][:120]}"
            raise BadInput(law, reason, str(path), "save the model as safetensors where you trust it") from None
    return False


def _model_class(folder: Path, config: Any, values: Mapping[str, Any], task: str | None) -> Any:
    """What to call `from_pretrained` on: the class config.json names, with a head for the task."""
    if "auto_map" in values:
        auto = AUTO_CLASS.get(task or "", "") or next((n for n in values["auto_map"] if n.startswith("AutoModel")), "")
        return getattr(transformers, auto or "AutoModel")
    if task is None and values.get("architectures"):
        return _class_named(folder, values)
    head = getattr(transformers, AUTO_CLASS.get(task or "", "AutoModel"))
    if type(config) not in head._model_mapping:
        raise _unknown(folder, values)
    return head


def _class_named(folder: Path, values: Mapping[str, Any]) -> Any:
    """The class of transformers that config.json's `architectures` names."""
    name = str((values.get("architectures") or ["none"])[0])
    found = getattr(transformers, name, None) if re.fullmatch(r"\w+", name) else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise _unknown(folder, values)
    return found


def _unknown(folder: Path, config: Mapping[str, Any], error: Exception | None = None) -> BadInput:
    named = f"{config.get('model_type')!r} {config.get('architectures')}"
    reason = f" ({type(error).__name__}: {str(error).strip().splitlines()[0][:160]})" if error and str(error) else ""
    law = f"the model is one that transformers {transformers.__version__} can load"
    return BadInput(law, named + reason, str(folder), "bring it as package.module:factory with --allow-code")


def _refuse_untrained(model: nn.Module, report: Mapping[str, Any], folder: Path) -> None:
    """A part that is not in the file would be random; only a pooler that nobody reads may be."""
    missing = sorted(name for name in report["missing_keys"] if not re.search(r"(^|\.)pooler\.", name))
    if missing or (report["missing_keys"] and "SequenceClassification" in type(model).__name__):
        named = ", ".join((missing or sorted(report["missing_keys"]))[:3])
        remedy = "choose a task that this model was trained for, or train it first"
        raise BadInput(
            f"every weight of {type(model).__name__} is in its file", f"none for {named}", str(folder), remedy
        )
    wrong = list(report.get("mismatched_keys") or [])
    if wrong:
        raise BadInput("weights have the shapes of config.json", str(wrong[0]), str(folder))


def pretrained_tokenizer(folder: Path, config: Any, allow_code: bool) -> Any | None:
    """The tokenizer of a folder, None where it has none; `config` is its model's."""
    names = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
    if not any((folder / name).is_file() for name in names):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=allow_code, local_files_only=True
        )
    except Exception as error:  # tokenizers raises a bare Exception for a corrupt file
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}" if str(error) else "an error"
        raise BadInput("the tokenizer files load", reason, str(folder)) from None


def example_inputs(model: nn.Module, tokenizer: Any | None) -> dict[str, Tensor] | None:
    """Inputs that the model accepts, batch 2, the same each time; None for a kind of input that is not known."""
    config: Any = model.config
    if model.main_input_name == "pixel_values":
        side = getattr(config, "image_size", 224)
        height, width = side if isinstance(side, list | tuple) else (side, side)
        shape = (2, getattr(config, "num_channels", 3), height, width)
        return {"pixel_values": torch.rand(shape, generator=torch.Generator().manual_seed(0))}
    if model.main_input_name != "input_ids":
        return None
    if tokenizer is not None:
        text = "archsmith finds the architecture that a trained model should have had."
        inputs = dict(tokenizer([text, text], return_tensors="pt"))
    else:
        ids = torch.arange(24).reshape(2, 12) * 7 % (config.vocab_size - 3) + 3
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :6]
    return inputs


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; `BadInput` where it is anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("the file holds JSON", str(error), str(path)) from None
    if not isinstance(value, dict):
        raise BadInput("the file holds a JSON object", type(value).__name__, str(path))
    return value


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without progress bars and warnings, as it was before afterwards."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
