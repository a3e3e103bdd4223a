"""PyTorch eager as a runtime: what ships is the saved model folder; a session calls the module itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.cost.cpu import lacks_bf16
from archsmith.cost.runtime import Arrays, Artifact, Precision, Session
from archsmith.errors import BadInput


class PyTorch:
    """Runs wrapped modules eagerly.

    The module that this process exported is run while it lives; a folder from elsewhere goes through `load`, which
    turns a saved folder into a wrapped module.
    """

    name = "pytorch"

    def __init__(self, load: Callable[[Path], nn.Module] | None = None) -> None:
        self._load = load
        self._live: WeakValueDictionary[Path, nn.Module] = WeakValueDictionary()

    def available(self) -> str | None:
        """Always None: archsmith itself needs PyTorch."""
        return None

    def precisions(self) -> Mapping[Precision, str | None]:
        """fp32 always; bf16 where the CPU has units for it (elsewhere PyTorch emulates it, more slowly)."""
        return {"fp32": None, "bf16": lacks_bf16()}

    def export(
        self,
        wrapped: nn.Module,
        example: Mapping[str, Tensor],
        dynamic: Mapping[str, Mapping[int, str]],
        path: Path,
    ) -> Artifact:
        """Remember the live module under folder `path`; its files are written by `archsmith.model.save`."""
        self._live[path.resolve()] = wrapped
        return Artifact(self.name, "fp32", path)

    def open(self, artifact: Artifact, threads: int = 1) -> Session:
        """A session on the live module, or on what `load` makes of the folder. Raises `BadInput` where neither is."""
        wrapped = self._live.get(artifact.path.resolve())
        if wrapped is None and self._load is not None:
            wrapped = self._load(artifact.path)
        if wrapped is None:
            raise BadInput(
                "PyTorch runs a module, not a file",
                "no live module and no loader",
                str(artifact.path),
                "export it in this process or give PyTorch(load=...)",
            )
        if artifact.precision == "bf16":
            wrapped = copy.deepcopy(wrapped).to(torch.bfloat16)
        elif artifact.precision != "fp32":
            raise BadInput("PyTorch runs fp32 or bf16", artifact.precision, str(artifact.path))
        return _session(wrapped.eval(), threads)


def _session(wrapped: nn.Module, threads: int) -> Session:
    dtype = next((p.dtype for p in wrapped.parameters() if p.is_floating_point()), torch.float32)

    def run(arrays: Arrays) -> np.ndarray:
        before = torch.get_num_threads()
        if before != threads:
            torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                tensors = {name: _tensor(array, dtype) for name, array in arrays.items()}
                output: Tensor = wrapped(**tensors)
                return output.float().numpy()
        finally:
            if before != threads:
                torch.set_num_threads(before)

    return run


def _tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
