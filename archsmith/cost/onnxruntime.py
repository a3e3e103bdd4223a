"""ONNX Runtime on the CPU: one torch export with named dimensions, opened with pinned threads."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

from archsmith.cost.agreement import arrays, resize
from archsmith.cost.onnxgraph import tune
from archsmith.cost.recurrent import standing_in, translations
from archsmith.cost.runtime import Arrays, Artifact, Precision, Session
from archsmith.errors import BadInput

OUTPUT = "outputs"
OPSET = 23  # the first with Attention: one node instead of some twenty
# Without 23's RotaryEmbedding, which as torch writes it runs for a batch of one only, and its Attention, which takes no
# mask of one row and no keys of one head for many.
OLDER = 20


class OnnxRuntime:
    """`model.onnx` in ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    def available(self) -> str | None:
        """None, or why onnxruntime cannot be imported."""
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            return f"onnxruntime cannot be imported: {error}"
        return None

    def precisions(self) -> Mapping[Precision, str | None]:
        """fp32 and int8 (dynamic); the CPU provider has no bf16 kernels for whole networks."""
        return {"fp32": None, "bf16": "ONNX Runtime's CPU kernels do not compute in bf16", "int8": None}

    def export(
        self,
        wrapped: nn.Module,
        example: Mapping[str, Tensor],
        dynamic: Mapping[str, Mapping[int, str]],
        path: Path,
    ) -> Artifact:
        """Write `path`/model.onnx. Raises `BadInput` where torch cannot export the model."""
        path.mkdir(parents=True, exist_ok=True)
        artifact = Artifact(self.name, "fp32", path / "model.onnx")
        program = capture(wrapped, example, dynamic)
        first: Exception | None = None
        for opset in (OPSET, OLDER):
            try:
                if first is not None:
                    with plain_kernels(wrapped):
                        program = capture(wrapped, example, dynamic)
                _write(program, example, dynamic, artifact.path, opset)
                self.open(artifact)(arrays(example))
                return artifact
            except OSError:  # a full disk is not the model's fault
                raise
            except Exception as error:  # of the converter or the runtime, each of which has its own
                first = first or error
        reason = " ".join(f"{type(first).__name__}: {first}".split())[:300]
        law, place = "torch.onnx.export and onnxruntime must take the model", type(wrapped).__name__
        raise BadInput(law, reason, place, "use the runtime pytorch or openvino") from first

    def open(self, artifact: Artifact, threads: int = 1) -> Session:
        """A session of the file; `fixed` overrides its free dimensions. Raises `BadInput` where it cannot be read."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if artifact.fixed is not None:
            for name, size in zip(("batch", "length"), artifact.fixed, strict=True):
                options.add_free_dimension_override_by_name(name, size)
        try:
            session = onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own undocumented classes
            raise BadInput(
                "an ONNX file must be readable", f"{type(error).__name__}: {str(error)[:200]}", str(artifact.path)
            ) from error
        wanted = {entry.name for entry in session.get_inputs()}

        def run(arrays: Arrays) -> np.ndarray:
            output: np.ndarray = session.run(None, {name: arrays[name] for name in wanted})[0]
            return output

        return run


def capture(
    wrapped: nn.Module, example: Mapping[str, Tensor], dynamic: Mapping[str, Mapping[int, str]]
) -> ExportedProgram:
    """One `torch.export` whose dimensions are named and open; their limits (512 positions) are found by torch.

    Raises `BadInput` where the model's forward cannot be captured.
    """
    # torch.export bakes in sizes 0 and 1, so every open dimension is shown at two or more.
    sizes = {label: 2 for dims in dynamic.values() for label in dims.values()}
    example = resize(example, dynamic, sizes, at_least=True)
    shapes: Any = {name: {dim: Dim(label) for dim, label in dynamic.get(name, {}).items()} or None for name in example}
    for attempt in range(3):
        try:
            with _quiet(), torch.no_grad(), standing_in(wrapped):
                return torch.export.export(wrapped.eval(), (), kwargs=dict(example), dynamic_shapes=shapes)
        except Exception as error:
            message = str(error)
            if attempt < 2 and "Suggested fixes" in message:
                # torch's reader of its own message expects nothing after the fixes.
                head, _, fixes = message.partition("Suggested fixes:")
                message = f"{head}Suggested fixes:{fixes.partition(chr(10) * 2)[0]}"
                shapes = refine_dynamic_shapes_from_suggested_fixes(message, shapes)
                continue
            if attempt < 2 and (short := re.search(r"violated \((\w+)\)(?s:.*)generated guard .* != 1", message)):
                shapes = _longer(shapes, short[1])
                continue
            raise BadInput(
                "torch.export must capture the model's forward",
                f"{type(error).__name__}: {message[:300]}",
                type(wrapped).__name__,
                "use the runtime pytorch",
            ) from error
    raise AssertionError("unreachable")


def _longer(shapes: Any, label: str) -> Any:
    """Without sizes of a dimension below 3: what foretells all tokens but the first gives one row less, and torch takes
    one row for none that is open."""
    return {
        name: dims
        and {at: Dim(label, min=3, max=dim.max) if dim.__name__ == label else dim for at, dim in dims.items()}
        for name, dims in shapes.items()
    }


@contextlib.contextmanager
def plain_kernels(wrapped: nn.Module) -> Iterator[None]:
    """Within, the attention and the experts of a transformers model are made of plain products.

    Its faster forms are operators of its own or torch's, which a converter may not know.
    """
    ways = {"_attn_implementation": "eager", "_experts_implementation": "batched_mm"}
    configs = {id(part.config): part.config for part in wrapped.modules() if hasattr(part, "config")}
    before = [(c, name, getattr(c, name)) for c in configs.values() for name in ways if getattr(c, name, None)]
    for config, name, _ in before:
        setattr(config, name, ways[name])
    try:
        yield
    finally:
        for config, name, value in before:
            setattr(config, name, value)


def _write(
    program: ExportedProgram,
    example: Mapping[str, Tensor],
    dynamic: Mapping[str, Mapping[int, str]],
    file: Path,
    opset: int,
) -> None:
    """Convert, tune and save a captured program in an operator set; raises what torch raises."""
    names = {name: dict(dims) for name, dims in dynamic.items()}
    onnx_program = _export(program, example, names, opset)
    if any(node.op_type == "RotaryEmbedding" for node in onnx_program.model.graph):
        onnx_program = _export(program, example, names, OLDER)
    onnx_program.model.graph.outputs[0].name = OUTPUT
    _name_dimensions(onnx_program, names)
    tune(onnx_program.model)
    onnx_program.save(str(file))


def _export(
    program: ExportedProgram, example: Mapping[str, Tensor], names: Mapping[str, Mapping[int, str]], opset: int
) -> Any:
    """torch's ONNX program of an operator set."""
    with _quiet(), torch.no_grad():
        return torch.onnx.export(
            program,
            (),
            kwargs=dict(example),
            dynamo=True,
            verbose=False,
            dynamic_shapes={name: dict(dims) for name, dims in names.items()},
            opset_version=opset,
            custom_translation_table=dict(translations()),
        )


def _name_dimensions(program: Any, names: Mapping[str, Mapping[int, str]]) -> None:
    """Give the open dimensions of the inputs their names, which `fixed` and users rely on."""
    import onnx_ir

    for value in program.model.graph.inputs:
        for dim, label in names.get(value.name, {}).items():
            shape = list(value.shape)
            shape[dim] = onnx_ir.SymbolicDim(label)
            value.shape = onnx_ir.Shape(shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of torchvision's absence and of its own internals; none of it is the user's affair."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
