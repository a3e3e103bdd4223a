"""The demo: all-MiniLM-L6-v2 as a search engine for documentation, without labels or downloads beyond PyPI."""

from __future__ import annotations

from pathlib import Path

from archsmith.cost import OpenVINO
from archsmith.cost.cpu import lacks_bf16
from archsmith.jobs.case import DEMO_DATA, DEMO_MODEL, Request, prepare
from archsmith.jobs.optimize import check_out, start
from archsmith.report.result import Result
from archsmith.report.terminal import Progress


def demo(
    out: str | Path, *, minutes: float = 7.0, threads: int = 1, seed: int = 0, progress: Progress | None = None
) -> Result:
    """Optimise the sentence-embedding model of the extra `demo` on the docstrings of the installed packages."""
    check_out(Path(out))
    request = Request(
        model=DEMO_MODEL,
        task="sentence-embedding",
        data=DEMO_DATA,
        targets=("drop<=2.0",),
        runtime=fastest_runtime(),
        threads=threads,
        minutes=minutes,
        seed=seed,
    )
    return start(prepare(request), out, progress)


def fastest_runtime() -> str:
    """The runtime that serves encoders fastest here: OpenVINO in bf16, else ONNX Runtime in int8."""
    return "openvino" if OpenVINO().available() is None and lacks_bf16() is None else "onnxruntime"
