"""Code that loads what a run shipped, written from the files that are really there. None of it needs archsmith."""

from __future__ import annotations

import json
from pathlib import Path

from archsmith.report.result import Variant
from archsmith.report.story import Snippet

TOKENS = """\
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({folder!r}, trust_remote_code=True)
inputs = tokenizer(["a text of yours"], return_tensors={tensors!r})
"""

ARRAYS = """\
# inputs: a dict of NumPy arrays by name, as the model's forward takes them
"""

ONNX = """\
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = {threads}
session = onnxruntime.InferenceSession({file!r}, options, providers=["CPUExecutionProvider"])
output, = session.run(None, {{each.name: inputs[each.name] for each in session.get_inputs()}})
"""

OPENVINO = """\
import openvino

hints = {hints!r}
compiled = openvino.Core().compile_model({file!r}, "CPU", hints)
output = compiled({{each.any_name: inputs[each.any_name] for each in compiled.inputs}})[0]
"""


PROGRAM = """\
import torch

# A .pt2 file is a program: load it where you trust it.
model = torch.export.load("model/model.pt2").module()
# inputs: a dict of tensors by name, as the module's forward takes them
with torch.inference_mode():
    output = model(**inputs)
"""


def snippets(run: Path, best: Variant, threads: int = 1) -> tuple[Snippet, ...]:
    """How to load `run/model` in each way that its files allow, the best's own file first among its kind.

    Threads are pinned as they were timed. The code runs with `run` as working directory.
    """
    prepare = TOKENS.format(folder="model", tensors="np") if _tokenizer(run) else ARRAYS
    found = []
    if (run / "model" / "config.json").is_file():
        found.append(Snippet("With transformers", _transformers(run, best)))
    if (run / "model" / "model.pt2").is_file():
        found.append(Snippet("With PyTorch", PROGRAM))
    if file := _file(run, best, ".onnx"):
        found.append(Snippet(f"With ONNX Runtime: {file}", prepare + ONNX.format(file=file, threads=threads)))
    if file := _file(run, best, ".xml"):
        hints: dict[str, object] = {"INFERENCE_NUM_THREADS": threads}
        if best.runtime == "openvino":
            hints["INFERENCE_PRECISION_HINT"] = "bf16" if "bf16" in best.precision else "f32"
        found.append(Snippet(f"With OpenVINO: {file}", prepare + OPENVINO.format(file=file, hints=hints)))
    return tuple(found)


def _transformers(run: Path, best: Variant) -> str:
    config = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    classes = [name for name in config.get("auto_map", {}) if name.startswith("AutoModel")]
    if classes:  # what the config cannot say is in the file that we ship beside it
        model, more = classes[0], ", trust_remote_code=True"
    else:
        model, more = (config.get("architectures") or ["AutoModel"])[0], ""
    if (best.runtime, best.precision) == ("pytorch", "bf16"):
        more += ", dtype=torch.bfloat16"
    load = f'import torch\nfrom transformers import {model}\n\nmodel = {model}.from_pretrained("model"{more}).eval()\n'
    if not _tokenizer(run):
        return (
            load + "# inputs: a dict of tensors by name\nwith torch.inference_mode():\n    output = model(**inputs)\n"
        )
    tokens = TOKENS.format(folder="model", tensors="pt")
    return f"{load}\n{tokens}with torch.inference_mode():\n    output = model(**inputs)\n"


def _tokenizer(run: Path) -> bool:
    return any((run / "model" / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"))


def _file(run: Path, best: Variant, ending: str) -> str | None:
    """The file of this kind to show: the best's own, else the first by name, the shortest name before longer ones."""
    there = sorted((run / "model").rglob(f"*{ending}"), key=lambda path: (len(path.name), str(path)))
    names = [path.relative_to(run).as_posix() for path in there]
    own = [name for name in names if best.path and (name == best.path or name.startswith(f"{best.path}/"))]
    return next(iter([*own, *names]), None)
