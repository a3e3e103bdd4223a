"""ENAS: a controller writes the paths that shared weights are trained on, and learns which are good from those weights.

Pham et al. 2018, "Efficient Neural Architecture Search via Parameter Sharing". The weights learn on one half of the
train rows; the controller, by policy gradient, from what a network that it wrote reaches on a batch of the other half.

R: reward, the mean likelihood of the right answers, exp(-loss), from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from archsmith.build.plan import Part as Plan
from archsmith.errors import BadInput
from archsmith.evaluate.weight_shared import Shared, halves, train_shared
from archsmith.space import Architecture
from archsmith.train import Fitted, Stateful
from archsmith.train.recipe import Recipe, losing

ALONE = 0.2  # of the steps, the weights learn along paths that are all alike likely
TRIES = 20  # networks that a controller writes before one must be able to run


class Controller(Stateful, Protocol):
    """What writes architectures, and is told what they were worth."""

    def write(self, rng: np.random.Generator) -> Architecture:
        """One that is likely."""
        ...

    def learn(self, architecture: Architecture, reward: float) -> None:
        """Move toward what is worth more than the mean, away from what is worth less."""
        ...


class _Controlled:
    """Draws what is trained: at first anything, then what the controller writes, which learns each time."""

    def __init__(self, shared: Shared, controller: Controller, recipe: Recipe) -> None:
        self.shared, self.controller, self.recipe = shared, controller, recipe
        _, self.others = halves(shared)
        self.done = 0

    def __call__(self, rng: np.random.Generator, /) -> Plan:
        """After one step of the controller."""
        self.done += torch.is_grad_enabled()  # otherwise the loss is only tried out
        if self.done <= ALONE * self.recipe.steps:
            return self.shared.drawn(rng)[1]
        architecture, plan = written(self.shared, self.controller, rng)
        rows = [self.others[i] for i in rng.integers(len(self.others), size=self.recipe.batch)]
        with torch.no_grad():
            network, task = self.shared.network(plan), self.shared.ground.task
            loss = float(losing(network, task, self.recipe, self.shared.seed)(rows))
        self.controller.learn(architecture, math.exp(-loss) if math.isfinite(loss) else 0.0)
        return written(self.shared, self.controller, rng)[1]

    def state_dict(self) -> dict[str, Any]:
        """Steps and the controller."""
        return {"done": self.done, "controller": self.controller.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from there."""
        self.done = state["done"]
        self.controller.load_state_dict(state["controller"])


def written(shared: Shared, controller: Controller, rng: np.random.Generator) -> tuple[Architecture, Plan]:
    """What the controller writes and can run; anything that can where nothing of it does for long."""
    for _ in range(TRIES):
        architecture = controller.write(rng)
        try:
            return architecture, shared.ground.plan(shared.blueprint, architecture, prune=False)
        except BadInput:
            controller.learn(architecture, 0.0)
    return shared.drawn(rng)


def train_controlled(
    shared: Shared,
    controller: Controller,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Fitted, Iterator[Architecture]]:
    """Train weights and controller, in place, by turns; then draws of the controller, without end. `checkpoint`: a file
    that a killed training goes on from."""
    before = deepcopy(controller.state_dict())

    def drawing(recipe: Recipe) -> _Controlled:
        controller.load_state_dict(deepcopy(before))  # what it learnt on batches that did not fit is not kept
        return _Controlled(shared, controller, recipe)

    first, _ = halves(shared)
    fitted = train_shared(shared, recipe, drawing=drawing, kept=first, checkpoint=checkpoint, progress=progress)

    def draws() -> Iterator[Architecture]:
        rng = np.random.default_rng([shared.seed, 25])
        while True:
            yield written(shared, controller, rng)[0]

    return fitted, draws()
