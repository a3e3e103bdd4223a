"""What a network costs on paper: parameters, multiply-accumulates of one call, bytes of its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from archsmith.errors import BadInput

# Operators that only make, name or move tensors: they cost time but have no multiply-accumulate to count.
_MOVES = frozenset(
    {"_to_copy", "_unsafe_view", "arange", "bitwise_and", "cat", "clone", "constant_pad_nd", "copy_", "detach"}
    | {"embedding", "empty", "fill_", "full", "index", "index_select", "lift_fresh", "new_ones", "new_zeros"}
    | {"ones", "ones_like", "scalar_tensor", "stack", "where", "zeros", "zeros_like"}
)


def _cpu_attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """FLOPs from the shapes (batch, heads, length, width) of the CPU's fused attention, which torch leaves out."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention}


@dataclass(frozen=True)
class Costs:
    """Counted, not measured. `uncounted` maps each operator without a formula to its calls (norms, activations ...)."""

    parameters: int
    macs: int
    weight_bytes: int
    uncounted: Mapping[str, int] = field(default_factory=dict)


class _Uncounted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators that torch's counter has no formula for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name = packet.__name__
        moves = name in _MOVES or func.is_view
        if packet not in flop_registry and packet not in _FORMULAS and not moves:
            self.calls[f"{func.namespace}.{name}"] += 1
        return out


def count(model: nn.Module, inputs: Mapping[str, Tensor]) -> Costs:
    """Parameters, MACs of `model(**inputs)` and bytes of weights; nothing of the model is changed.

    A parameter used twice is counted once. MACs come from torch's own FLOP formulas (two FLOPs are one MAC): matrix
    products, convolutions, attention. Everything else is listed in `uncounted`.

    >>> costs = count(nn.Sequential(nn.Linear(8, 4), nn.GELU()), {"input": torch.zeros(2, 8)})
    >>> costs.parameters, costs.macs, costs.weight_bytes, dict(costs.uncounted)
    (36, 64, 144, {'aten.gelu': 1})
    """
    modes = {module: module.training for module in model.modules()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    # The counter hooks the gradient of every tensor that a module passes on; it fails where that is a parameter itself.
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        # no_grad, not inference_mode: the counter must see aten operators of ordinary tensors.
        with (
            torch.no_grad(),
            FlopCounterMode(display=False, custom_mapping=dict(_FORMULAS)) as flops,
            _Uncounted() as uncounted,
        ):
            model(**inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter in learning:
            parameter.requires_grad_(True)
    return Costs(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=flops.get_total_flops() // 2,
        weight_bytes=weight_bytes(model),
        uncounted=dict(uncounted.calls),
    )


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and of the buffers that are saved, shared ones once.

    >>> weight_bytes(nn.Linear(8, 4).to(torch.bfloat16))
    72
    """
    saved = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values() if isinstance(tensor, Tensor)}
    return sum(tensor.numel() * tensor.element_size() for tensor in saved.values())


def file_bytes(path: Path) -> int:
    """Bytes of what ships: a folder with all in it, or a file with the weights beside it (.bin, .data).

    Raises `BadInput` where nothing is there.
    """
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if not path.is_file():
        raise BadInput("a shipped file exists", "none", str(path))
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else [Path(f"{path}.data")]
    return sum(file.stat().st_size for file in [path, *beside] if file.is_file())
