"""ENAS: a controller writes the paths that shared weights are trained on, and learns which are good from those weights.

Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing". The weights learn on one half of the
train rows; the controller, by policy gradient, from what a network that it wrote reaches on a batch of the other half.

R: reward, the mean likelihood of the right answers, exp(-loss), from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch

from archsmith.build.plan import Part as Plan
from archsmith.errors import BadInput
from archsmith.evaluate.weight_shared import Shared, halves, train_shared
from archsmith.space import Architecture
from archsmith.train import Fitted
from archsmith.train.recipe import Recipe, losing

ALONE = 0.2  # of the steps, the weights learn along paths that are all alike likely
TRIES = 20  # networks that a controller writes before one must be able to run


class Controller(Protocol):
    """What writes architectures, and is told what they were worth."""

    def write(self, rng: np.random.Generator) -> Architecture:
        """One that is likely."""
        ...

    def learn(self, architecture: Architecture, reward: float) -> None:
        """Move toward what is worth more than the mean, away from what is worth less."""
        ...


def train_controlled(
    shared: Shared, controller: Controller, recipe: Recipe, *, progress: Callable[[int], None] | None = None
) -> tuple[Fitted, Iterator[Architecture]]:
    """Train weights and controller, in place, by turns; then draws of the controller, without end."""
    ground, (first, others) = shared.ground, halves(shared)

    def written(rng: np.random.Generator) -> tuple[Architecture, Plan]:
        for _ in range(TRIES):
            architecture = controller.write(rng)
            try:
                return architecture, ground.plan(shared.blueprint, architecture, prune=False)
            except BadInput:
                controller.learn(architecture, 0.0)
        return shared.drawn(rng)

    def drawing(recipe: Recipe) -> Callable[[np.random.Generator], Plan]:
        done = 0

        def drawn(rng: np.random.Generator) -> Plan:
            nonlocal done
            done += torch.is_grad_enabled()  # otherwise the loss is only tried out
            if done <= ALONE * recipe.steps:
                return shared.drawn(rng)[1]
            architecture, plan = written(rng)
            rows = [others[i] for i in rng.integers(len(others), size=recipe.batch)]
            with torch.no_grad():
                loss = float(losing(shared.network(plan), ground.task, recipe, shared.seed)(rows))
            controller.learn(architecture, math.exp(-loss) if math.isfinite(loss) else 0.0)
            return written(rng)[1]

        return drawn

    fitted = train_shared(shared, recipe, drawing=drawing, kept=first, progress=progress)

    def draws() -> Iterator[Architecture]:
        rng = np.random.default_rng([shared.seed, 25])
        while True:
            yield written(rng)[0]

    return fitted, draws()
