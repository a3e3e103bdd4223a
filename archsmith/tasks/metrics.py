"""Classification metrics in points (0 to 100), from counts of (true, predicted).

The records are (examples, 2) int64: true class, predicted class (-1 where the model gave no finite answer).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from archsmith.errors import BadInput


def confusion(judged: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes + 1) int64: rows true, columns predicted, the last column for no answer."""
    predicted = np.where(judged[:, 1] < 0, classes, judged[:, 1])
    flat = np.bincount(judged[:, 0] * (classes + 1) + predicted, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def accuracy(counts: np.ndarray) -> float:
    """Share of right answers."""
    return 100.0 * float(np.trace(counts)) / max(int(counts.sum()), 1)


def f1_macro(counts: np.ndarray) -> float:
    """Mean F1 of the classes that occur as truth or answer (as scikit-learn's `average="macro"`)."""
    hits, true, predicted = _margins(counts)
    present = true + predicted > 0
    return 100.0 * float(np.mean(2 * hits[present] / (true + predicted)[present])) if present.any() else 0.0


def f1_binary(counts: np.ndarray) -> float:
    """F1 of class 1."""
    hits, true, predicted = _margins(counts)
    return 100.0 * float(2 * hits[1] / max(true[1] + predicted[1], 1))


def recall_macro(counts: np.ndarray) -> float:
    """Mean recall of the classes that occur as truth: balanced accuracy."""
    hits, true, _ = _margins(counts)
    return 100.0 * float(np.mean(hits[true > 0] / true[true > 0])) if true.any() else 0.0


def recall_binary(counts: np.ndarray) -> float:
    """Recall of class 1."""
    hits, true, _ = _margins(counts)
    return 100.0 * float(hits[1] / max(true[1], 1))


def _margins(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.diagonal(counts), counts.sum(axis=1), counts[:, :-1].sum(axis=0)


METRICS: Mapping[str, Callable[[np.ndarray], float]] = {
    "accuracy": accuracy,
    "f1_macro": f1_macro,
    "f1_binary": f1_binary,
    "recall_macro": recall_macro,
    "recall_binary": recall_binary,
}


def find_metric(name: str, classes: int) -> Callable[[np.ndarray], float]:
    """The metric of that name; `f1` and `recall` are those of class 1 with two classes and macro with more.

    >>> find_metric("f1", 3).__name__
    'f1_macro'
    """
    full = f"{name}_{'binary' if classes == 2 else 'macro'}" if name in ("f1", "recall") else name
    if full not in METRICS:
        known = ", ".join([*METRICS, "f1", "recall"])
        raise BadInput("a classification metric must be known", repr(name), "", f"choose one of {known}")
    if full.endswith("_binary") and classes != 2:
        found = f"{name!r} with {classes} classes"
        raise BadInput("a binary metric needs two classes", found, "", f"choose {full.replace('binary', 'macro')}")
    return METRICS[full]
