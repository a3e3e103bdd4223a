"""What a network costs: parameters, MACs, bytes, memory, and latency on each runtime."""

from collections.abc import Callable

from archsmith.cost.agreement import agree, arrays, resize
from archsmith.cost.count import Costs, count, file_bytes, weight_bytes
from archsmith.cost.decode import decode_times, decodes
from archsmith.cost.measure import Ratio, pinned, ratio, sample_times, summarise, time_sessions
from archsmith.cost.onnxruntime import OnnxRuntime
from archsmith.cost.openvino import OpenVINO
from archsmith.cost.pytorch import PyTorch
from archsmith.cost.runtime import Arrays, Artifact, Latency, Precision, Runtime, Session
from archsmith.cost.table import Curve, LatencyModel, Probe, fit_latency

RUNTIMES: dict[str, Callable[[], Runtime]] = {
    "pytorch": PyTorch,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVINO,
}

__all__ = [
    "RUNTIMES",
    "Arrays",
    "Artifact",
    "Costs",
    "Curve",
    "Latency",
    "LatencyModel",
    "OnnxRuntime",
    "OpenVINO",
    "Precision",
    "Probe",
    "PyTorch",
    "Ratio",
    "Runtime",
    "Session",
    "agree",
    "arrays",
    "count",
    "decode_times",
    "decodes",
    "file_bytes",
    "fit_latency",
    "pinned",
    "ratio",
    "resize",
    "sample_times",
    "summarise",
    "time_sessions",
    "weight_bytes",
]
