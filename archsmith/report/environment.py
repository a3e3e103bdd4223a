"""Where a run was measured: versions, processor, and the instructions that decide which precisions are fast."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("archsmith", "torch", "transformers", "onnxruntime", "openvino", "nncf", "optuna", "numpy")
INSTRUCTIONS = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni"),
    "bf16": ("avx512_bf16", "amx_bf16", "avx10_2", "bf16"),
    "amx": ("amx_tile",),
}
"""What the report names -> the processor flags, any of which means that it is there."""


@dataclass(frozen=True)
class Environment:
    """`versions` of the packages that are installed; `flags`: instruction set -> present; `threads` timed with."""

    python: str
    platform: str
    cpu: str
    cores: int
    threads: int
    flags: Mapping[str, bool]
    versions: Mapping[str, str]


def observe(threads: int, cpuinfo: Path = Path("/proc/cpuinfo")) -> Environment:
    """This machine, now. Where there is no /proc the flags stay false and the processor is what Python says.

    >>> observe(threads=1).threads
    1
    """
    model, present = _processor(cpuinfo)
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        cpu=model,
        cores=os.cpu_count() or 1,
        threads=threads,
        flags={name: any(flag in present for flag in flags) for name, flags in INSTRUCTIONS.items()},
        versions={name: found for name in PACKAGES if (found := _version(name))},
    )


def _processor(cpuinfo: Path) -> tuple[str, frozenset[str]]:
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = facts.get("model name") or platform.processor() or platform.machine()
    return model, frozenset((facts.get("flags") or facts.get("Features", "")).split())  # the latter is ARM's name


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
