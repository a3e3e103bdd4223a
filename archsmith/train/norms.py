"""Norms over batches while a network is trained: what they measure is no weight, and yet goes wrong with one."""

from __future__ import annotations

import torch
from torch import nn


class Norms:
    """What norms over batches have measured: a step that is skipped must not leave what is not finite in it."""

    def __init__(self, module: nn.Module) -> None:
        norms = (part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
        measured = [(norm.running_mean, norm.running_var) for norm in norms]
        self.measured = [tensor for pair in measured for tensor in pair if tensor is not None]
        self.before = [tensor.detach().clone() for tensor in self.measured]

    def keep(self) -> None:
        """Before a step."""
        if self.measured:
            torch._foreach_copy_(self.before, self.measured)

    def put_back(self) -> None:
        """As they were before it."""
        if self.measured:
            torch._foreach_copy_(self.measured, self.before)
