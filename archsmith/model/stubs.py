"""What stands where a piece was cut out. Self-contained: this text is shipped inside saved models."""

from typing import Any

import torch
from torch import nn


class Skip(nn.Module):
    """Stands for a skipped module: gives its main input back, or where `constant` its `bias` (none: zeros) instead.

    The main input is the first floating tensor among the arguments, (..., width). `items`: 0 gives a bare tensor, n a
    tuple of it and n - 1 times None.
    """

    def __init__(self, items: int = 0, constant: bool = False, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.items, self.constant = items, constant
        self.register_parameter("bias", bias)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        x = next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
        if self.constant:
            bias = self._parameters.get("bias")
            x = torch.zeros_like(x) if bias is None else bias.expand(*x.shape[:-1], -1)
        return (x,) + (None,) * (self.items - 1) if self.items else x


class Bias(nn.Module):
    """Stands for the last product of a skipped branch, (..., width) -> (..., width): its bias, else zeros."""

    def __init__(self, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.register_parameter("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self._parameters.get("bias")
        return torch.zeros_like(x) if bias is None else bias.expand(*x.shape[:-1], -1)
