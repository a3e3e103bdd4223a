"""What a run takes from the machine: peak resident memory and CPU seconds."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from archsmith.cost.runtime import Arrays, Artifact
from archsmith.errors import BadInput


def process_peak() -> int:
    """Peak resident bytes of this process since its start.

    >>> process_peak() > 1_000_000
    True
    """
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells there began with the peak of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serving_peak(artifact: Artifact, inputs: Arrays, calls: int = 3, threads: int = 1) -> int:
    """How far resident memory of a fresh process rises when it opens an exported file and runs it, in bytes.

    The runtime's own libraries are part of it, Python and this package are not. PyTorch folders need a loader and
    cannot be served so. Raises `BadInput` with the child's last line when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "inputs.npz"
        np.savez(arrays, allow_pickle=False, **dict(inputs))
        order = {
            "runtime": artifact.runtime,
            "precision": artifact.precision,
            "path": str(artifact.path),
            "fixed": artifact.fixed,
            "inputs": str(arrays),
            "calls": calls,
            "threads": threads,
        }
        child = subprocess.run(
            [sys.executable, "-m", "archsmith.cost.memory", json.dumps(order)],
            capture_output=True,
            text=True,
            check=False,
        )
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise BadInput("an exported file must run in a process of its own", last, str(artifact.path))
    return int(child.stdout.split()[-1])


@dataclass
class CpuTime:
    """CPU seconds of this process, user and system, all threads."""

    seconds: float = 0.0


@contextlib.contextmanager
def cpu_time() -> Iterator[CpuTime]:
    """Counts CPU seconds of this process while inside.

    >>> with cpu_time() as spent:
    ...     _ = sum(range(10**6))
    >>> spent.seconds > 0
    True
    """
    spent = CpuTime()
    before = cpu_seconds()
    try:
        yield spent
    finally:
        spent.seconds = cpu_seconds() - before


def cpu_seconds() -> float:
    """CPU seconds of this process so far, user and system, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _serve(order: str) -> int:
    from archsmith.cost import RUNTIMES

    asked = json.loads(order)
    fixed = tuple(asked["fixed"]) if asked["fixed"] else None
    artifact = Artifact(asked["runtime"], asked["precision"], Path(asked["path"]), fixed)
    with np.load(asked["inputs"], allow_pickle=False) as stored:
        inputs = {name: stored[name] for name in stored.files}
    with contextlib.suppress(OSError):  # from here on the peak counts anew, on Linux
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    idle = psutil.Process().memory_info().rss
    session = RUNTIMES[artifact.runtime]().open(artifact, asked["threads"])
    for _ in range(asked["calls"]):
        session(inputs)
    return max(0, process_peak() - idle)


if __name__ == "__main__":
    print(_serve(sys.argv[1]))
