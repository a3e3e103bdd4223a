"""What every benchmark script shares: its options, its numbers on lines, its JSON with machine and versions."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archsmith.cost.cpu import cpu_name, flags

HERE = Path(__file__).resolve().parent
VERSIONS = ("torch", "transformers", "onnxruntime", "openvino", "nncf", "numpy", "scipy")
TELLING = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass
class Record:
    """The numbers of one benchmark: `say` prints and keeps one, `decide` the last one and whether it holds."""

    name: str
    data: Path
    check: bool
    numbers: dict[str, Any] = field(default_factory=dict)
    held: bool = True
    started: float = field(default_factory=time.time)

    def say(self, name: str, value: Any, unit: str = "", must: bool | None = None) -> None:
        """Print one number on a line and keep it; `must`: whether what the issue demands of it holds."""
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        verdict = "" if must is None else ("  holds" if must else "  DOES NOT HOLD")
        print(f"{name}: {shown}{' ' + unit if unit else ''}{verdict}", flush=True)
        self.numbers[name] = value
        self.held = self.held and must is not False

    def write(self) -> Path:
        """The JSON result beside the script."""
        file = HERE / "results" / f"{self.name}.json"
        file.parent.mkdir(exist_ok=True)
        content = {
            "benchmark": self.name,
            "held": self.held,
            "numbers": self.numbers,
            "machine": machine(),
            "seconds": round(time.time() - self.started, 1),
        }
        file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return file


def machine() -> dict[str, Any]:
    """CPU, its telling instruction sets, cores, load, and the versions of what was measured."""
    versions: dict[str, str | None] = {}
    for package in VERSIONS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": cpu_name(),
        "flags": [flag for flag in TELLING if flag in flags()],
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **versions,
    }


def main(name: str, run: Callable[[Record, argparse.Namespace], None], *options: tuple[str, dict[str, Any]]) -> None:
    """Parse `--data DIR`, `--check` and the script's own options, run, write; with `--check` exit 1 on a failure."""
    parser = argparse.ArgumentParser(prog=f"{name}.py", description=run.__doc__)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared", help="folder made by prepare.py")
    parser.add_argument("--check", action="store_true", help="exit 1 where a number does not hold")
    for flag, settings in options:
        parser.add_argument(flag, **settings)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"--data must be a folder made by prepare.py; {arguments.data} is none")
    record = Record(name, arguments.data, arguments.check)
    run(record, arguments)
    record.write()
    if record.check and not record.held:
        sys.exit(1)
