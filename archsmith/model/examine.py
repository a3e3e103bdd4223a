"""See what a network can become: trace it, propose axes and branches, certify each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from archsmith.model import axes, branches
from archsmith.model.anatomy import Anatomy, Axis
from archsmith.model.bench import Bench
from archsmith.model.certify import Verdicts, certify_axes, certify_branches, hold_on
from archsmith.model.running import check_runs
from archsmith.model.share import ancestors, skeleton
from archsmith.model.trace import trace


def examine(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    rng: np.random.Generator,
    again: Mapping[str, Tensor] | None = None,
) -> Anatomy:
    """What can change in `model`, proved on `inputs` (its keyword arguments; keep them short) and variations of them.

    `again`: inputs as long as those that will be served, with padding, on which all axes are cut once more, together:
    a window of attention or a mask may show only there. The model is not touched. Raises `BadInput` where its forward
    pass fails, gives NaN or is not deterministic.
    """
    private = skeleton(model).eval()
    check_runs(private, inputs)
    bench = Bench(private, inputs, rng)
    traced = trace(bench.model, bench.inputs[0])
    candidates, frozen = axes.propose(traced, private)
    bench.tell_units_apart([candidate.axis for candidate in candidates])
    verdicts = Verdicts()
    certified = certify_axes(bench, traced, candidates, verdicts)
    if again is not None:
        certified = hold_on(private, again, certified, verdicts, rng)
    proposed = branches.propose(traced, private, candidates)
    skippable = certify_branches(bench, proposed, verdicts)
    names = {branch.name for branch in skippable}
    known = {candidate.axis.name for candidate in certified}
    order = [candidate.axis.name for candidate in candidates if candidate.axis.name in known]
    by_name = {candidate.axis.name: candidate.axis for candidate in certified}
    return Anatomy(
        axes={name: _in_layer(by_name[name], names) for name in order},
        branches={
            branch.name: replace(branch, axes=tuple(a for a in branch.axes if a in known)) for branch in skippable
        },
        certificates=tuple(verdicts.by_subject.values()),
        frozen=frozen,
        unknown_operators=dict(traced.unknown),
    )


def _in_layer(axis: Axis, skippable: set[str]) -> Axis:
    """The axis with its layer the innermost list entry that can be skipped, or else the innermost at all."""
    path = axis.layer or ""
    return replace(axis, layer=next((p for p in [path, *ancestors(path)] if p in skippable), axis.layer))
