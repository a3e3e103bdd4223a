"""The seam of the cost room: a runtime exports once, opens what it exported, and runs it.

Arrays are NumPy; a session takes the model's keyword inputs by name and gives the one output (batch, outputs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "int8", "int8+bf16"]
Arrays = Mapping[str, np.ndarray]
Session = Callable[[Arrays], np.ndarray]


@dataclass(frozen=True)
class Artifact:
    """A file (or folder) that can be shipped: which runtime opens it, in which precision, at which shapes.

    `fixed` is None for a file that accepts any batch and length, else the (batch, length) that it was compiled for.
    """

    runtime: str
    precision: Precision
    path: Path
    fixed: tuple[int, int] | None = None


@dataclass(frozen=True)
class Latency:
    """Median time of one call and its 95 % interval, milliseconds; `runs` timed calls."""

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int


class Runtime(Protocol):
    """Where a network runs: PyTorch, ONNX Runtime, OpenVINO."""

    name: str

    def available(self) -> str | None:
        """None when this machine can use it, else the reason why not."""
        ...

    def precisions(self) -> Mapping[Precision, str | None]:
        """Each precision it knows -> None if this CPU really computes in it, else why not."""
        ...

    def export(
        self,
        wrapped: nn.Module,
        example: Mapping[str, Tensor],
        dynamic: Mapping[str, Mapping[int, str]],
        path: Path,
    ) -> Artifact:
        """Write the fp32 file for this runtime into folder `path` and say what was written."""
        ...

    def open(self, artifact: Artifact, threads: int = 1) -> Session:
        """A session with pinned threads. Raises `BadInput` where the file cannot be run."""
        ...
