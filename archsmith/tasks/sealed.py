"""A holdout that can be counted, but not read before the end, and then once."""

from __future__ import annotations

from archsmith.errors import ArchsmithError
from archsmith.tasks.task import Part


class Sealed:
    """Three parts of data, one of which is sealed until the last measurement."""

    holdout_opened = False
    real_share = 1.0

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
