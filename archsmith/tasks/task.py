"""The seam of the tasks room: one kind of problem is data, a loss and a metric.

Rows index the examples of one part. The three parts never mix: `train` (also calibration) teaches, `validation`
decides, `holdout` is read once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol, Self

import numpy as np
from torch import Tensor, nn

Part = Literal["train", "validation", "holdout"]


class Task(Protocol):
    """What archsmith needs to know of a problem. Quality is in points (0 to 100; a forecast may be below), larger is
    better."""

    name: str
    metric: str
    real_share: float  # of the train rows that the original is asked for, where there are more than can be asked
    self_taught: bool  # whether the data alone teach, so that the original need not be asked
    block: int  # rows next to one another that are not independent; 1 where all are

    def size(self, part: Part) -> int:
        """Rows in a part."""
        ...

    def lengths(self, part: Part) -> np.ndarray:
        """Cost-like length of each row, (rows,) int64: tokens of a text, 1 where all rows are alike."""
        ...

    def inputs(self, part: Part, rows: Sequence[int]) -> dict[str, Tensor]:
        """The model's keyword inputs for these rows, padded to the longest of them."""
        ...

    def targets(self, part: Part, rows: Sequence[int]) -> Tensor | None:
        """What the loss compares with, or None for a task that learns from the original model alone."""
        ...

    def wrap(self, model: nn.Module) -> nn.Module:
        """A module `(**inputs) -> Tensor (batch, outputs)` around the model: what is distilled, exported and timed."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean supervised loss of wrapped outputs (batch, outputs)."""
        ...

    def divergence(self, outputs: Tensor, original: Tensor) -> Tensor:
        """Mean distance of wrapped outputs from the original model's (both (batch, outputs)); 0 where equal.

        Kullback-Leibler for classifiers, similarity structure for embeddings.
        """
        ...

    def apart(self, outputs: Tensor, original: Tensor) -> Tensor:
        """How far wrapped outputs are from the original's, better or worse: 0 where equal, else above."""
        ...

    def judge(self, outputs: np.ndarray, part: Part) -> np.ndarray:
        """Wrapped outputs of all rows of a part -> one record an example, (examples, ...)."""
        ...

    def quality(self, judged: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Points from judged records, of all or of some rows (a bootstrap resample)."""
        ...

    def example(self, batch: int, length: int) -> dict[str, Tensor]:
        """Real inputs of exactly this batch and length, without padding: what latency is measured on."""
        ...

    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """Which dimensions of which input vary, by name: {"input_ids": {0: "batch", 1: "length"}}."""
        ...

    def batches(self, part: Part, size: int, rng: np.random.Generator | None = None) -> Iterator[list[int]]:
        """Rows of one pass in batches of like length; shuffled when `rng` is given, in order of length otherwise."""
        ...

    def open_holdout(self) -> None:
        """Break the seal of the holdout, once, for the last measurement. Reading it before that raises."""
        ...

    def drop(self, judged: np.ndarray, original: np.ndarray) -> float:
        """Points that a network is below the original, from both records on validation; on new data if it can."""
        ...

    def extended(self, count: int, rng: np.random.Generator) -> Self:
        """The same task with `count` more train rows, in-domain and without labels: the original labels them."""
        ...
