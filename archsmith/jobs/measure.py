"""The verb `measure`: what a model costs, and its latency on each runtime and precision that this machine has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.compress.quantise import quantise
from archsmith.cost import (
    RUNTIMES,
    Arrays,
    Artifact,
    Latency,
    Precision,
    Runtime,
    Session,
    agree,
    arrays,
    count,
    file_bytes,
    pinned,
    resize,
    time_sessions,
)
from archsmith.cost.memory import serving_peak
from archsmith.errors import ArchsmithError, BadInput
from archsmith.jobs.case import check_length
from archsmith.model.load import Loaded, load
from archsmith.model.running import check_runs

REPEATS, WARMUP, SECONDS = 60, 3, 60.0
RANDOM_RANGES = "ranges from random inputs: right for speed only"
Row = dict[str, Any]


def measure(
    source: str,
    *,
    runtime: str = "all",
    threads: int = 1,
    batch: int = 1,
    length: int = 128,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Costs and latencies of a model directory, a hub id, `package.module:factory` or an .onnx file, as plain data.

    `{"costs": {...}, "latency": [{"runtime", "precision", "median_ms", "low_ms", "high_ms", "runs", "note"}, ...]}`;
    a row of a file has `file_bytes` and `peak_bytes` (memory that serving it takes), a row without a median says in
    `note` why. All rows are timed interleaved, in one run. Raises `BadInput` for an
    unknown runtime, sizes below 1, or a source that cannot be read.
    """
    if runtime != "all" and runtime not in RUNTIMES:
        raise BadInput(f"--runtime is all or one of {', '.join(RUNTIMES)}", repr(runtime))
    if min(threads, batch, length) < 1:
        raise BadInput("threads, batch and length are at least 1", f"{threads}, {batch}, {length}")
    chosen = [make() for name, make in RUNTIMES.items() if runtime in ("all", name)]
    with pinned(threads), tempfile.TemporaryDirectory() as folder:
        if source.endswith(".onnx"):
            inputs = _onnx_inputs(Path(source), batch, length)
            costs: dict[str, Any] = {"file_bytes": file_bytes(Path(source))}
            rows, sessions = _open_onnx(Path(source), chosen, threads, inputs)
        else:
            loaded = load(source, allow_code=allow_code)
            check_length(loaded, length)
            wrapped, example, dynamic = served(loaded, batch, length)
            check_runs(wrapped, example)
            inputs = arrays(example)
            counted = count(wrapped, example)
            costs = {"parameters": counted.parameters, "macs": counted.macs, "weight_bytes": counted.weight_bytes}
            costs["uncounted"] = sorted(counted.uncounted)
            rows, sessions = _open_model(wrapped, example, dynamic, chosen, (threads, Path(folder)))
        latencies = _time(sessions, inputs)
    for key, latency in latencies.items():
        rows[key] |= {
            "median_ms": latency.median_ms,
            "low_ms": latency.low_ms,
            "high_ms": latency.high_ms,
            "runs": latency.runs,
        }
    return {"source": source, "batch": batch, "length": length, "costs": costs, "latency": list(rows.values())}


class Served(nn.Module):
    """A transformers model as a function of its inputs to one tensor: logits, else the last hidden state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def _pick(self, output: Any) -> Tensor:
        for name in ("logits", "last_hidden_state"):
            if hasattr(output, name):
                picked: Tensor = getattr(output, name)
                return picked
        first: Tensor = output if isinstance(output, Tensor) else output[0]
        return first


class ServedText(Served):
    """Tokens and their mask in, and the decoder's tokens where there is one."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor | None = None) -> Tensor:
        """(batch, length) each -> the model's tensor."""
        more = {} if decoder_input_ids is None else {"decoder_input_ids": decoder_input_ids}
        return self._pick(self.model(input_ids=input_ids, attention_mask=attention_mask, **more))


class ServedImage(Served):
    """Pixels in."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the model's tensor."""
        return self._pick(self.model(pixel_values=pixel_values))


def served(loaded: Loaded, batch: int, length: int) -> tuple[nn.Module, dict[str, Tensor], dict[str, dict[int, str]]]:
    """The wrapped model, its inputs at this batch and length, and their open dimensions by name.

    Raises `BadInput` where the model has no example inputs.
    """
    if loaded.example is None:
        raise BadInput("a model is measured on inputs", "none could be made", loaded.source, "give a factory")
    example = dict(loaded.example)
    wrapped: nn.Module = loaded.model
    if loaded.kind != "module":
        if "input_ids" in example:
            example.setdefault("attention_mask", torch.ones_like(example["input_ids"]))
            wrapped = ServedText(loaded.model)
        else:
            wrapped = ServedImage(loaded.model)
        taken = ("input_ids", "attention_mask", "decoder_input_ids") if "input_ids" in example else ("pixel_values",)
        example = {name: example[name] for name in taken if name in example}
    dynamic = {
        name: {0: "batch", 1: "length"} if tensor.dim() == 2 and not tensor.is_floating_point() else {0: "batch"}
        for name, tensor in example.items()
    }
    example = resize(example, dynamic, {"batch": batch, "length": length})
    if "attention_mask" in example:
        example["attention_mask"] = torch.ones_like(example["attention_mask"])
    return wrapped.eval(), example, dynamic


def _open_model(
    wrapped: nn.Module,
    example: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, str]],
    runtimes: list[Runtime],
    place: tuple[int, Path],
) -> tuple[dict[str, Row], dict[str, Session]]:
    """Export once a runtime, open every precision; a row for each, also for those that this machine lacks."""
    threads, folder = place
    rows: dict[str, Row] = {}
    sessions: dict[str, Session] = {}
    for runtime in runtimes:
        reason = runtime.available()
        if reason is not None:
            rows[runtime.name] = {"runtime": runtime.name, "precision": "", "note": reason}
            continue
        try:
            exported = runtime.export(wrapped, example, dynamic, folder / runtime.name)
        except ArchsmithError as error:
            rows[runtime.name] = {"runtime": runtime.name, "precision": "", "note": str(error)}
            continue
        for precision, lacking in runtime.precisions().items():
            key = f"{runtime.name} {precision}"
            row: Row = {"runtime": runtime.name, "precision": precision, "note": lacking or ""}
            rows[key] = row
            if lacking is None:
                try:
                    sessions[key] = _open(runtime, exported, precision, arrays(example), threads, row)
                    row["deviation"] = agree(wrapped, sessions[key], [example])
                except ArchsmithError as error:
                    row["note"] = str(error)
    return rows, sessions


def _open(
    runtime: Runtime, exported: Artifact, precision: Precision, inputs: Arrays, threads: int, row: Row
) -> Session:
    lowered = quantise(exported, precision, [inputs], exported.path.parent / precision)
    if runtime.name == "openvino" and "int8" in precision:
        row["note"] = RANDOM_RANGES
    if runtime.name != "pytorch":
        row["file_bytes"] = file_bytes(lowered.path)
        row["peak_bytes"] = serving_peak(lowered, inputs, threads=threads)
    return runtime.open(lowered, threads)


def _open_onnx(
    file: Path, runtimes: list[Runtime], threads: int, inputs: Arrays
) -> tuple[dict[str, Row], dict[str, Session]]:
    """An ONNX file as it is, in the runtimes that read ONNX; one that cannot read or run it gets the reason."""
    rows: dict[str, Row] = {}
    sessions: dict[str, Session] = {}
    for runtime in runtimes:
        row: Row = {"runtime": runtime.name, "precision": "as stored", "note": ""}
        reason = "PyTorch does not run ONNX files" if runtime.name == "pytorch" else runtime.available()
        if reason is None:
            try:
                artifact = Artifact(runtime.name, "fp32", file)
                session = runtime.open(artifact, threads)
                session(inputs)
                sessions[runtime.name] = session
            except Exception as error:  # runtimes raise classes of their own, and inputs made up may not fit the file
                reason = f"cannot run it: {' '.join(str(error).split())[:200]}"
        if reason is None:
            try:
                row["peak_bytes"] = serving_peak(artifact, inputs, threads=threads)
            except BadInput as error:
                reason = str(error)
        rows[runtime.name] = row | {"note": reason or ""}
    return rows, sessions


def _onnx_inputs(file: Path, batch: int, length: int) -> Arrays:
    """Inputs for an ONNX file: its open dimensions filled, integers 1, floats normal. Raises `BadInput`."""
    if not file.is_file():
        raise BadInput("an ONNX file exists", "none", str(file))
    import onnx

    try:
        graph = onnx.load(str(file), load_external_data=False).graph
    except Exception as error:  # protobuf raises its own classes
        raise BadInput("an .onnx file holds an ONNX model", type(error).__name__, str(file)) from error
    stored = {tensor.name for tensor in graph.initializer}
    rng = np.random.default_rng(0)
    inputs: dict[str, np.ndarray] = {}
    for entry in graph.input:
        if entry.name in stored:
            continue
        dims = entry.type.tensor_type.shape.dim
        shape = [d.dim_value if d.HasField("dim_value") else (length if at else batch) for at, d in enumerate(dims)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
        floating = np.issubdtype(dtype, np.floating)
        inputs[entry.name] = (rng.standard_normal(shape) if floating else np.ones(shape)).astype(dtype)
    return inputs


def _time(sessions: Mapping[str, Session], inputs: Arrays) -> dict[str, Latency]:
    if not sessions:
        return {}

    def call(session: Session) -> Callable[[], object]:
        return lambda: session(inputs)

    calls = {key: call(session) for key, session in sessions.items()}
    return time_sessions(calls, REPEATS, WARMUP, np.random.default_rng(0), SECONDS)
