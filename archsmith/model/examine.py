"""See what a network can become: trace it, propose axes and branches, certify each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from archsmith.model import axes, branches
from archsmith.model.anatomy import Anatomy
from archsmith.model.running import check_runs
from archsmith.model.share import skeleton
from archsmith.model.trace import trace


def examine(model: nn.Module, inputs: Mapping[str, Tensor], rng: np.random.Generator) -> Anatomy:
    """What can change in `model`, proved on `inputs` (its keyword arguments; keep them short) and variations of them.

    The model is not touched. Raises `BadInput` where its forward pass fails, gives NaN or is not deterministic.
    """
    private = skeleton(model).eval()
    check_runs(private, inputs)
    traced = trace(private, inputs)
    candidates, frozen = axes.propose(traced, private)
    proposed = branches.propose(traced, private, candidates)
    return Anatomy(
        axes={c.axis.name: c.axis for c in candidates},
        branches={branch.name: branch for branch in proposed},
        certificates=(),
        frozen=frozen,
        unknown_operators=dict(traced.unknown),
    )
