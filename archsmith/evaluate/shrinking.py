"""Progressive shrinking (Cai et al. 2020, "Once-for-all"): elastic weights of the largest network first, then of ever
smaller ones, so that small networks begin where large ones have arrived.

The largest network learns alone; then choices open, one kind after another: kernels and operators, depth, widths. Each
step then follows the sandwich rule (Yu et al. 2020, "BigNAS"): the largest network learns from labels, the smallest of
what is open and some random ones learn from it as well ("in-place distillation").

What is large is told by multiply-accumulates (`sizes.py`); of what kind a choice is, by what the space uses it for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archsmith.build.plan import Part as Plan
from archsmith.errors import BadInput
from archsmith.evaluate.elastic import Elastic
from archsmith.evaluate.from_scratch import DRAWN
from archsmith.evaluate.sizes import Values, nearest
from archsmith.train import Fitted, fit
from archsmith.train.recipe import Recipe, halving, losing, passes_of

ALONE = 0.3  # of the steps, the largest network learns alone (180 of 605 epochs)
EARLIER = 1 / 6  # of a kind's steps, before the last of its values is open (25 of 150 epochs)
DEPTH, WIDTHS = frozenset({"repeat"}), frozenset({"out", "heads", "head", "hidden"})


@dataclass(frozen=True)
class Phase:
    """From when on, as a share of all steps, choices may have which values."""

    start: float
    open: Values


def phases(uses: Mapping[str, set[str]], order: Values) -> list[Phase]:
    """When which values open. Of depth and widths the larger values open first. Where it is not known what choices are
    used for (`uses` lacks them), all are of one kind and open so.

    >>> order = {"k": (5, 3), "d": (3, 2, 1)}
    >>> for phase in phases({"k": {"kernel"}, "d": {"repeat"}}, order): print(round(phase.start, 2), phase.open)
    0.0 {'k': (5,), 'd': (3,)}
    0.3 {'k': (5, 3), 'd': (3,)}
    0.65 {'k': (5, 3), 'd': (3, 2)}
    0.71 {'k': (5, 3), 'd': (3, 2, 1)}
    """
    kinds: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for name in order:
        use = uses.get(name, DEPTH)
        kinds[2 if use & WIDTHS else 1 if use & DEPTH else 0].append(name)
    kinds = {kind: names for kind, names in kinds.items() if any(len(order[name]) > 1 for name in names)}
    opened = {name: values[:1] for name, values in order.items()}
    found = [Phase(0.0, dict(opened))]
    share = (1 - ALONE) / max(1, len(kinds))
    for number, (kind, names) in enumerate(kinds.items()):
        most = max(len(order[name]) for name in names)
        counts = range(2, most + 1) if kind else [most]
        for i, count in enumerate(counts):
            opened |= {name: order[name][:count] for name in names}
            start = ALONE + share * (number + EARLIER * i / max(1, len(counts) - 1))
            found.append(Phase(start, dict(opened)))
    return found


def train_shrinking(
    shared: Elastic,
    recipe: Recipe,
    *,
    paths: int = 4,
    distil: float = 0.5,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fitted:
    """Train elastic weights in place by progressive shrinking, over one schedule.

    `paths`: networks a step after the first phase, the largest and the smallest among them. `distil`: of the loss of
    all but the largest, how much is the divergence from its answers; the rest comes from labels. `checkpoint`: a file
    that a killed training goes on from. Raises `BadInput` for fewer than two paths, or a share that is none.
    """
    if not (0 <= distil <= 1 and paths >= 2):
        law = "progressive shrinking has two networks a step or more, and a share of distillation from 0 to 1"
        raise BadInput(law, f"paths={paths}, distil={distil}", "--strategy")
    task, seed = shared.ground.task, shared.seed
    stages = phases(getattr(shared.blueprint, "uses", {}), shared.order)
    for stage in stages:  # what none of the covered networks had is made before the optimiser sees what there is
        for plan in sandwich(shared, stage.open, 2, np.random.default_rng([seed, 27])):
            shared.network(plan)

    def attempt(recipe: Recipe) -> Fitted:
        loss, schedule = _Shrinking(shared, stages, recipe, paths, distil), recipe.schedule(seed)
        passes = passes_of(task, recipe.batch, seed)
        return fit(shared, passes, loss, schedule, checkpoint=checkpoint, beside=loss, progress=progress)

    shared.begin()
    return halving(recipe, attempt, shared.afresh, checkpoint=checkpoint)


class _Shrinking:
    """rows -> the loss of a step; what is open at it follows from how many were before."""

    def __init__(self, shared: Elastic, stages: Sequence[Phase], recipe: Recipe, paths: int, distil: float) -> None:
        self.shared, self.stages, self.recipe = shared, stages, recipe
        self.paths, self.distil = paths, distil
        self.done = 0

    def __call__(self, rows: list[int]) -> Tensor:
        shared, stages, distil = self.shared, self.stages, self.distil
        task, seed = shared.ground.task, shared.seed
        rng = np.random.default_rng([seed, 26, self.done])
        stage = stages[-1]
        if torch.is_grad_enabled():  # otherwise the loss is only tried out
            stage = [each for each in stages if each.start <= self.done / self.recipe.steps][-1]
            self.done += 1
        outputs: list[Tensor] = []
        total: list[Tensor] = []
        for plan in sandwich(shared, stage.open, 1 if stage is stages[0] else self.paths, rng):
            wrapped = shared.network(plan)
            wrapped.register_forward_hook(lambda *given: outputs.append(given[-1]))
            own = losing(wrapped, task, self.recipe, seed)(rows)  # each sees the same varied rows
            if total and distil:
                own = (1 - distil) * own + distil * task.divergence(outputs[-1], outputs[0].detach())
            total.append(own)
        return torch.stack(total).mean()

    def state_dict(self) -> dict[str, Any]:
        """Steps."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from there."""
        self.done = state["done"]


def sandwich(shared: Elastic, open_: Values, paths: int, rng: np.random.Generator) -> list[Plan]:
    """The plans of the largest, the smallest and random networks of what is open; random ones where one cannot run."""
    ground, blueprint = shared.ground, shared.blueprint

    def drawn() -> Plan:
        for _ in range(DRAWN):
            values = {name: values[int(rng.integers(len(values)))] for name, values in open_.items()}
            try:
                return ground.plan(blueprint, nearest(blueprint.space, values), prune=False)
            except BadInput:
                continue
        return shared.drawn(rng)[1]

    def at(position: int) -> Plan:
        try:
            values = {name: values[position] for name, values in open_.items()}
            return ground.plan(blueprint, nearest(blueprint.space, values), prune=False)
        except BadInput:
            return drawn()

    ends: Sequence[int] = (0, -1)
    return [at(position) for position in ends[:paths]] + [drawn() for _ in range(paths - 2)]
