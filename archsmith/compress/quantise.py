"""Lower precision of exported files: ONNX Runtime's dynamic int8, OpenVINO's int8 by nncf, and its bf16 hint."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from archsmith.cost.runtime import Arrays, Artifact, Precision
from archsmith.errors import BadInput

SUBSET = 300  # nncf's own default: more samples hardly move the ranges


def quantise(artifact: Artifact, precision: Precision, calibration: Sequence[Arrays], folder: Path) -> Artifact:
    """The fp32 `artifact` in another precision, its file written into `folder` where a new one is needed.

    bf16 needs no new file: the fp32 file is opened with the hint. int8 in ONNX Runtime is dynamic and reads no
    calibration; in OpenVINO nncf observes the ranges on at most 300 calibration inputs. Raises `BadInput` for a
    precision that the runtime does not have, without calibration where it is needed, or where nncf is missing.
    """
    if artifact.precision != "fp32":
        raise BadInput("only an fp32 file can be lowered", artifact.precision, str(artifact.path), "start from fp32")
    if precision == "fp32" or (precision == "bf16" and artifact.runtime in ("pytorch", "openvino")):
        return replace(artifact, precision=precision)
    if artifact.runtime == "onnxruntime" and precision == "int8":
        return replace(artifact, precision=precision, path=_onnx_int8(artifact.path, folder))
    if artifact.runtime == "openvino" and precision in ("int8", "int8+bf16"):
        return replace(artifact, precision=precision, path=_openvino_int8(artifact.path, calibration, folder))
    raise BadInput(f"{artifact.runtime} has this precision", precision, str(artifact.path), "choose another precision")


def lacks_nncf() -> str | None:
    """None where OpenVINO int8 can be made here, else why not."""
    try:
        import nncf  # noqa: F401
        import openvino  # noqa: F401
    except ImportError as error:
        return f"{error}; install archsmith[openvino]"
    return None


def _onnx_int8(source: Path, folder: Path) -> Path:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.registry import IntegerOpsRegistry

    model = onnx.load(str(source))
    # torch's export infers shapes that onnxruntime's own inference contradicts; it makes them again.
    del model.graph.value_info[:]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{source.stem}.int8.onnx"
    with _quiet("root"):
        # Signed weights of eight bits overflow in AVX2's 16-bit sums unless the range is reduced to seven.
        quantize_dynamic(
            model,
            str(target),
            # What it calls Attention is an operator of its own with weights, not ONNX's.
            op_types_to_quantize=[name for name in IntegerOpsRegistry if name != "Attention"],
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=_no_vnni(),
        )
    return target


def _no_vnni() -> bool:
    from archsmith.cost.cpu import flags

    known = flags()
    return "avx2" in known and not known & {"avx512_vnni", "avx_vnni"}


def _openvino_int8(source: Path, calibration: Sequence[Arrays], folder: Path) -> Path:
    reason = lacks_nncf()
    if reason is not None:
        raise BadInput("OpenVINO int8 needs nncf", reason, str(source), "pip install 'archsmith[openvino]'")
    if not calibration:
        raise BadInput("OpenVINO int8 needs calibration inputs", "none", str(source), "give some training rows")
    import nncf
    import openvino

    model: Any = openvino.Core().read_model(str(source))
    names = {entry.get_any_name() for entry in model.inputs}
    rows = [{name: inputs[name] for name in names} for inputs in calibration[:SUBSET]]
    with _quiet("nncf"):
        lowered = nncf.quantize(
            model,
            nncf.Dataset(rows),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(rows),
        )
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{source.stem}.int8.xml"
    openvino.save_model(lowered, str(target), compress_to_fp16=False)
    return target


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Progress bars and advice of the quantisers are not the user's output."""
    logger = logging.getLogger(None if name == "root" else name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
