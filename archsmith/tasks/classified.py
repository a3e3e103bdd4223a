"""What every classification shares: labels, loss, distance from the original's answers, quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from archsmith.errors import BadInput
from archsmith.tasks.metrics import confusion, find_metric
from archsmith.tasks.sealed import Sealed
from archsmith.tasks.split import SplitReport
from archsmith.tasks.task import Part

RIGHT = 0.4  # on new rows: how much oftener the original is right than a small network that disagrees with it
UNLABELLED = -100  # what torch's cross entropy passes over


def first_of(result: Any) -> Tensor:
    """The logits of whatever a classifier returns."""
    logits: Tensor = result if isinstance(result, Tensor) else result[0] if isinstance(result, tuple) else result.logits
    return logits


class Classified(Sealed):
    """Examples with a label each; quality is accuracy, F1 or recall, in points.

    `label_names` maps the data's labels to class numbers; `classes` is the largest number plus one.
    """

    split: SplitReport
    size: Callable[[Part], int]  # rows in a part; whoever holds the data knows

    def __init__(self, targets: Mapping[Part, np.ndarray], label_names: Mapping[str, int], metric: str) -> None:
        self.label_names = dict(label_names)
        self.classes = max(label_names.values()) + 1
        self.metric = metric
        self._measure = find_metric(metric, self.classes)
        self._targets = dict(targets)

    def targets(self, part: Part, rows: Sequence[int]) -> Tensor:
        """(rows,) int64 class numbers; -100 for rows that `extended` added."""
        self._check_seal(part)
        numbers = self._targets[part]
        at = np.asarray(rows, dtype=np.int64)
        real = at < len(numbers)
        return torch.from_numpy(np.where(real, numbers[np.where(real, at, 0)], UNLABELLED))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy of logits (batch, classes) over the labelled rows; 0 where none is."""
        total = functional.cross_entropy(outputs.float(), targets, ignore_index=UNLABELLED, reduction="sum")
        return total / (targets != UNLABELLED).sum().clamp(min=1)

    def divergence(self, outputs: Tensor, original: Tensor) -> Tensor:
        """Mean Kullback-Leibler divergence KL(original || outputs) of the classes at temperature 1, in nats."""
        log_p = functional.log_softmax(original.float(), dim=-1)
        log_q = functional.log_softmax(outputs.float(), dim=-1)
        return functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)

    def judge(self, outputs: np.ndarray, part: Part) -> np.ndarray:
        """Logits (rows, classes) -> (rows, 2) int64: true class, predicted class (-1 where a logit is not finite).

        Rows of the train part that `extended` added are left out.
        """
        self._check_seal(part)
        true = self._targets[part]
        if outputs.ndim != 2 or outputs.shape[1] < self.classes or len(outputs) != self.size(part):
            law = f"the model must give {self.size(part)} rows of at least {self.classes} logits, one for each label"
            raise BadInput(
                law, f"shape {outputs.shape}", part, "check the model's number of labels and the label column"
            )
        outputs = outputs[: len(true)]
        predicted = np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), -1)
        return np.stack([true, predicted], axis=1)

    def drop(self, judged: np.ndarray, original: np.ndarray) -> float:
        """Points that a network is below the original, from the records of both on validation.

        An original that was trained on the data that validation was split off has learnt those rows, and their
        difference is too large by what it owes to that. What it has learnt by heart cannot make the two agree, though:
        on new rows, too, they disagree about as often, and then the original is right little more often than not. So
        where validation has no file of its own, the share of disagreements times `RIGHT` is the most that is believed.
        That holds for the accuracy of two classes, of which one of both is right: any other drop counts as it is.
        """
        found = self.quality(original) - self.quality(judged)
        if "validation" not in self.split.split_off or self.metric != "accuracy" or self.classes != 2:
            return found
        apart = 100.0 * float(np.mean(judged[:, 1] != original[:, 1]))
        return min(found, RIGHT * apart)

    def quality(self, judged: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Points by the task's metric, of all or of some records (examples, 2)."""
        chosen = judged if rows is None else judged[rows]
        return self._measure(confusion(chosen, max(self.classes, int(chosen.max(initial=0)) + 1)))
