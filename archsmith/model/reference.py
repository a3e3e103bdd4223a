"""The masked model that a cut is compared with: its norms and means see only the kept units.

A layer norm over 256 of 384 channels divides by 256. Masking alone leaves the division by 384, so the operators
that average (they were noted in order during the trace) are computed over the kept positions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from archsmith.model.labels import Atom, Label, Mismatch, leaves, units
from archsmith.model.trace import AVERAGES, Traced

_NORMS = {"native_layer_norm", "_fused_rms_norm", "rms_norm"}


class Reference(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no annotations there
    """Runs the operators of a traced forward pass again, means restricted to `keep` (atom -> kept unit numbers)."""

    def __init__(self, traced: Traced, keep: Mapping[Atom, np.ndarray]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waiting: list[tuple[str, dict[int, Tensor]]] = []
        for name, averaged in traced.means[::-1]:
            dims = {dim: kept for dim, label in averaged if (kept := _kept(label, keep)) is not None}
            self.waiting.append((name, dims))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket._qualified_op_name.split("::")[-1]
        if name == "_weight_norm_interface":
            direction, length = func(*args, **(kwargs or {}))
            return direction.nan_to_num(), length  # what is masked has no direction: 0 / 0
        if name not in AVERAGES:
            return func(*args, **(kwargs or {}))
        expected, dims = self.waiting.pop() if self.waiting else ("", {})
        if name != expected:
            raise Mismatch("the model runs other operators on other inputs")
        if name in _NORMS and dims:
            return _norm(func, args, dims)
        x = args[0]
        for dim, kept in dims.items():
            x = x.index_select(dim, kept)
        return func(x, *args[1:], **(kwargs or {}))


def _kept(label: Label, keep: Mapping[Atom, np.ndarray]) -> Tensor | None:
    """The positions of a dimension that stay, None where all do."""
    stays: np.ndarray | None = None
    here = set(leaves(label)) & set(keep)
    if not here:
        return None
    for atom, unit in units(label).items():
        if atom in here:
            mine = (unit < 0) | np.isin(unit, keep[atom])
            stays = mine if stays is None else stays & mine
    return None if stays is None else torch.from_numpy(np.flatnonzero(stays))


def _norm(func: Any, args: tuple[Any, ...], dims: Mapping[int, Tensor]) -> Any:
    x, shape, *rest = args
    (dim, kept), *more = dims.items()
    if more or len(shape) != 1 or dim != x.dim() - 1:
        raise Mismatch("a norm over several dimensions at once")
    scales = [value.index_select(0, kept) if isinstance(value, Tensor) else value for value in rest]
    out = func(x.index_select(dim, kept), [len(kept)], *scales)
    full = torch.zeros_like(x).index_copy(dim, kept, out[0] if isinstance(out, tuple) else out)
    return (full, *out[1:]) if isinstance(out, tuple) else full
