"""Half-precision weights computed with in single precision, so that a large model is run in the memory of its file.

Where a CPU has no units for bf16 its kernels are some thirty times slower than those of fp32, and their rounding hides
what a certificate looks for. Here an operator gets its half-precision arguments widened just before it runs, and what
was widened is gone when it is done; a large matrix is widened piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

HALF = (torch.bfloat16, torch.float16)
PIECE = 2**24  # entries of a matrix that are widened at a time
# Operators that pick or move entries: what comes out is widened, not the table that goes in.
PICKS = frozenset({"embedding", "index_select", "index", "gather"})
VIEWS = frozenset({"t", "transpose", "permute", "view", "_unsafe_view", "reshape", "expand", "slice", "select", "split",
                   "split_with_sizes", "unbind", "unsqueeze", "squeeze", "alias", "detach", "as_strided"})  # fmt: skip


class Wide(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no annotations there
    """Every operator computes in single precision or more; half-precision tensors are only kept."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket._qualified_op_name.split("::")[-1]
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in HALF and torch._C._current_graph_task_id() == -1:  # a gradient has its weight's type
            kwargs["dtype"] = torch.float32
        if name in PICKS:
            return widened(func(*args, **kwargs))
        if name in VIEWS:
            return func(*args, **kwargs)
        if name == "mm" and args[1].dtype in HALF and args[1].numel() > PIECE:
            pieces = torch.split(args[1], max(1, PIECE // args[1].shape[0]), dim=1)
            return torch.cat([func(widened(args[0]), widened(piece)) for piece in pieces], 1)
        written = args[0] if args and name.endswith("_") and isinstance(args[0], Tensor) else None
        if written is not None and written.dtype in HALF:  # the storage is the caller's and stays as it is
            return func(*args, **kwargs)
        return func(*tree_map(widened, args), **tree_map(widened, kwargs))


class _Convolutions(TorchFunctionMode):
    """Convolutions compare the types of their arguments before any operator runs: theirs are widened first."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "").startswith("conv"):
            return func(*tree_map(widened, args), **tree_map(widened, kwargs or {}))
        return func(*args, **(kwargs or {}))


def widened(value: Any) -> Any:
    """A half-precision tensor in single precision; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


@contextmanager
def computed_wide(model: nn.Module) -> Iterator[None]:
    """`Wide` for a model that holds half-precision weights on a CPU, else nothing."""
    if any(p.dtype in HALF and p.device.type == "cpu" for p in model.parameters()):
        with _Convolutions(), Wide():  # type: ignore[no-untyped-call]
            yield
    else:
        yield
