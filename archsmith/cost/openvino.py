"""OpenVINO on the CPU (extra `openvino`): converted from PyTorch, opened with pinned threads and a stated precision."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.cost.agreement import resize
from archsmith.cost.cpu import lacks_bf16
from archsmith.cost.runtime import Arrays, Artifact, Precision, Session
from archsmith.errors import BadInput

OUTPUT = "outputs"
_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "int8+bf16": "bf16"}


class OpenVINO:
    """`openvino_model.xml` and `.bin`, compiled for the CPU when opened."""

    name = "openvino"

    def available(self) -> str | None:
        """None, or why openvino cannot be imported."""
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            return f"openvino is not installed ({error}); install archsmith[openvino]"
        return None

    def precisions(self) -> Mapping[Precision, str | None]:
        """bf16 only where the CPU has the units *and* a compiled network really runs its product in bf16."""
        if self.available() is not None:
            return {}
        bf16 = lacks_bf16() or _probe_bf16()
        return {"fp32": None, "bf16": bf16, "int8": None, "int8+bf16": bf16}

    def export(
        self,
        wrapped: nn.Module,
        example: Mapping[str, Tensor],
        dynamic: Mapping[str, Mapping[int, str]],
        path: Path,
    ) -> Artifact:
        """Write `path`/openvino_model.xml and .bin in fp32. Raises `BadInput` where OpenVINO cannot convert."""
        import openvino

        path.mkdir(parents=True, exist_ok=True)
        file = path / "openvino_model.xml"
        sizes = {label: 2 for dims in dynamic.values() for label in dims.values()}
        shown = resize(example, dynamic, sizes, at_least=True)
        try:
            with _quiet(), torch.no_grad():
                model = openvino.convert_model(wrapped.eval(), example_input=dict(shown))
                _name_inputs(model, list(shown))
                model.reshape({name: _open_shape(tensor, dynamic.get(name, {})) for name, tensor in shown.items()})
        except Exception as error:  # openvino raises its own undocumented classes
            raise BadInput(
                "OpenVINO must take the model",
                f"{type(error).__name__}: {str(error)[:300]}",
                type(wrapped).__name__,
                "use the runtime pytorch or onnxruntime",
            ) from error
        for entry in model.inputs:  # OpenVINO adds the names of what does nothing with an input, as a whole slice
            entry.get_tensor().set_names(entry.get_names() & set(shown))
        model.outputs[0].get_tensor().set_names({OUTPUT})
        openvino.save_model(model, str(file), compress_to_fp16=False)
        return Artifact(self.name, "fp32", file)

    def open(self, artifact: Artifact, threads: int = 1) -> Session:
        """Compile for `threads` threads in the artifact's precision, for its `fixed` shape if it has one.

        Raises `BadInput` where the file cannot be read or compiled.
        """
        compiled = compile_artifact(artifact, threads)
        wanted = {entry.get_any_name() for entry in compiled.inputs}
        request = compiled.create_infer_request()

        def run(arrays: Arrays) -> np.ndarray:
            results = request.infer({name: arrays[name] for name in wanted}, share_inputs=True)
            output: np.ndarray = results[0]
            return output

        return run


def compile_artifact(artifact: Artifact, threads: int = 1) -> Any:
    """The compiled network behind a session; `runtime_precisions` looks into it."""
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(str(artifact.path))
        if artifact.fixed is not None:
            model.reshape({entry: _fixed_shape(entry.partial_shape, artifact.fixed) for entry in model.inputs})
        return core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                # Said even for fp32: on a CPU with bf16 units OpenVINO would otherwise choose bf16 by itself.
                "INFERENCE_PRECISION_HINT": _HINTS[artifact.precision],
            },
        )
    except Exception as error:
        raise BadInput(
            "OpenVINO must be able to read and compile the file",
            f"{type(error).__name__}: {str(error)[:200]}",
            str(artifact.path),
        ) from error


def runtime_precisions(compiled: Any) -> Counter[str]:
    """In which type each node of a compiled network really computes: {"f32": 237, "i8": 38, ...}."""
    kinds: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        value = node.get_rt_info()["runtimePrecision"]
        kinds[str(getattr(value, "value", value))] += 1
    return kinds


@cache
def _probe_bf16() -> str | None:
    """Compile one matrix product with the bf16 hint and look whether it runs in bf16."""
    import openvino
    from openvino import opset13 as ops

    rows = ops.parameter([-1, 64], np.float32)
    weight = ops.constant(np.ones((64, 64), np.float32))
    model = openvino.Model([ops.matmul(rows, weight, False, False)], [rows], "probe")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    if runtime_precisions(compiled)["bf16"]:
        return None
    return "not available here: OpenVINO ignores the bf16 hint on this CPU"


def _name_inputs(model: Any, names: list[str]) -> None:
    """Inputs keep their keyword names; a converter that lost one gives them back in order."""
    for entry, name in zip(model.inputs, names, strict=False):
        if not entry.get_names():
            entry.get_tensor().set_names({name})


def _open_shape(tensor: Tensor, dims: Mapping[int, str]) -> Any:
    import openvino

    return openvino.PartialShape([-1 if dim in dims else size for dim, size in enumerate(tensor.shape)])


def _fixed_shape(shape: Any, fixed: tuple[int, int]) -> list[int]:
    """The first open dimension is the batch, every later one the length."""
    sizes = iter((fixed[0],))
    return [next(sizes, fixed[1]) if dim.is_dynamic else dim.get_length() for dim in shape]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("openvino")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
