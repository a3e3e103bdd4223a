"""What this CPU can compute in, read from the operating system."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


@cache
def flags() -> frozenset[str]:
    """The instruction sets that Linux names (x86 `flags`, ARM `Features`); empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, names = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return frozenset(names.split())
    return frozenset()


def lacks_bf16() -> str | None:
    """None where the CPU multiplies bf16 in hardware, else the reason why not."""
    units = {"amx_bf16", "avx512_bf16", "avx10_2", "bf16"}  # the last one is ARM's name
    return None if units & flags() else "not available here: the CPU has no bf16 units"


@cache
def cpu_name() -> str:
    """The CPU's marketing name, or the architecture where it is not told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
