"""What stands where a piece was cut out. Self-contained: this text is shipped inside saved models."""

from typing import Any

import torch
from torch import nn


class Skip(nn.Module):
    """Stands for a skipped module: gives its main input back, or (`width` > 0) a constant vector of that width.

    The main input is the first floating tensor among the arguments. `items`: 0 gives a bare tensor, n a tuple of it
    and n - 1 times None. The constant is `bias` if the skipped piece had one, else zeros.
    """

    def __init__(self, items: int = 0, width: int = 0, biased: bool = False) -> None:
        super().__init__()
        self.items, self.width = items, width
        self.bias = nn.Parameter(torch.zeros(width)) if biased else None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        x = next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
        if self.bias is not None:
            x = self.bias.expand(*x.shape[:-1], -1)
        elif self.width:
            x = x.new_zeros(*x.shape[:-1], self.width)
        return (x,) + (None,) * (self.items - 1) if self.items else x


class Bias(nn.Module):
    """Stands for the last product of a skipped branch, (..., anything) -> (..., width): its bias, else zeros."""

    def __init__(self, width: int, biased: bool = True) -> None:
        super().__init__()
        self.width = width
        self.bias = nn.Parameter(torch.zeros(width)) if biased else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.bias is None:
            return x.new_zeros(*x.shape[:-1], self.width)
        return self.bias.expand(*x.shape[:-1], -1)
