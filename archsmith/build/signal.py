"""What runs from one module to the next: a picture, a sequence, a vector, or tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Signal:
    """A shape without the batch: (channels, height, width), (length, channels), (channels,); tokens: (length,).

    >>> Signal((3, 32, 32)).channels, Signal((128, 64)).channels, str(Signal((3, 32, 32)))
    (3, 64, '3x32x32')
    """

    shape: tuple[int, ...]
    tokens: bool = False
    masked: bool = False  # a sequence of which some places may be padding

    @property
    def channels(self) -> int:
        """What a convolution or a linear map mixes."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def around(self) -> tuple[int, ...]:
        """All but the channels."""
        return self.shape[1:] if len(self.shape) == 3 else self.shape[:-1]

    def with_channels(self, channels: int) -> Signal:
        """The same with other channels."""
        shape = (channels, *self.around) if len(self.shape) == 3 else (*self.around, channels)
        return Signal(shape, masked=self.masked)

    def example(self, rows: int = 1) -> Tensor:
        """A batch of zeros, on the device of the surrounding context."""
        return torch.zeros((rows, *self.shape), dtype=torch.long if self.tokens else torch.float32)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) + (" tokens" if self.tokens else "")
