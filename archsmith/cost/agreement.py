"""Does an exported file compute what PyTorch computes? Also: one example at other batch sizes and lengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.cost.runtime import Arrays, Session

Dynamic = Mapping[str, Mapping[int, str]]


def arrays(inputs: Mapping[str, Tensor]) -> Arrays:
    """The same inputs as NumPy arrays, which sessions take."""
    return {name: tensor.detach().numpy() for name, tensor in inputs.items()}


def agree(wrapped: nn.Module, session: Session, examples: Iterable[Mapping[str, Tensor]]) -> float:
    """Largest deviation of the session's outputs from `wrapped`'s over the largest of these (or over 1 where that is
    larger), of all examples; NaN counts as inf.

    >>> double = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(double.weight, 2.0)
    >>> agree(double, lambda arrays: arrays["input"] * 2.5, [{"input": torch.ones(3, 1)}])
    0.25
    """
    largest = 0.0
    for inputs in examples:
        with torch.inference_mode():
            expected = wrapped(**inputs).float().numpy()
        found = session(arrays(inputs))
        if expected.shape != found.shape:
            return float("inf")
        deviation = float(np.abs(expected - found).max(initial=0.0) / max(1.0, np.abs(expected).max(initial=0.0)))
        largest = max(largest, deviation if np.isfinite(deviation) else float("inf"))
    return largest


def resize(
    example: Mapping[str, Tensor], dynamic: Dynamic, sizes: Mapping[str, int], at_least: bool = False
) -> dict[str, Tensor]:
    """The example with its named dimensions repeated or cropped to `sizes`; `at_least`: only the smaller ones grow.

    >>> out = resize({"ids": torch.tensor([[5, 6, 7]])}, {"ids": {0: "batch", 1: "length"}}, {"batch": 2, "length": 4})
    >>> out["ids"].tolist()
    [[5, 6, 7, 5], [5, 6, 7, 5]]
    """
    resized = dict(example)
    for name, dims in dynamic.items():
        for dim, label in dims.items():
            tensor = resized[name]
            size, wanted = tensor.shape[dim], sizes.get(label, tensor.shape[dim])
            if size == wanted or (at_least and size > wanted):
                continue
            index = torch.arange(wanted) % size
            resized[name] = tensor.index_select(dim, index)
    return resized
