"""A holdout that can be counted, but not read before the end, and then once."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from archsmith.errors import ArchsmithError
from archsmith.tasks.task import Part


class Sealed:
    """Three parts of data, one of which is sealed until the last measurement."""

    holdout_opened = False
    real_share = 1.0
    block = 1
    self_taught = False

    def open_holdout(self) -> None:
        """Break the seal: from now on the holdout can be read. Once only, so that it decides nothing.

        Raises `ArchsmithError` the second time.
        """
        if self.holdout_opened:
            raise ArchsmithError("the holdout is opened once, at the end; it has been opened already")
        self.holdout_opened = True

    def _check_seal(self, part: Part) -> None:
        if part == "holdout" and not self.holdout_opened:
            raise ArchsmithError("the holdout is sealed until the last measurement; call open_holdout() first")

    @abstractmethod
    def divergence(self, outputs: Tensor, original: Tensor) -> Tensor:
        """As a task has it."""

    def apart(self, outputs: Tensor, original: Tensor) -> Tensor:
        """The divergence, where that is never below 0."""
        return self.divergence(outputs, original)
