"""Declared networks judged by scores that need no training, against networks of the same space drawn at random.

Scores have units of their own, so each is turned into the share of the reference networks that it beats, and a network
has the mean of its shares: a rank ensemble (Abdelfattah et al. 2021) that one network by itself can be judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from archsmith.build import Blueprint
from archsmith.build.plan import Part as Plan
from archsmith.errors import BadInput
from archsmith.evaluate.from_scratch import Ground, Onward
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.zero_cost import LABELLED, SCORES, zero_cost
from archsmith.trial import Proposal

REFERENCES = 48  # networks that are drawn
ROWS = 64  # of the one batch
LEAST = -1e12  # what a score without a value counts as

Reference = tuple[tuple[str, tuple[float, ...]], ...]  # name of a score, and its values of the reference, ascending


@dataclass(frozen=True, eq=False)
class Untrained:
    """The evaluator of declared architectures by scores of the untrained network.

    Values: `rank_points` (100 - the mean percentage of the reference that it beats), `minus_NAME` of each score, and
    `parameters`, `macs`, `weight_bytes`.
    """

    ground: Ground
    blueprint: Blueprint
    reference: Reference
    seed: int = 0

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Build and score one architecture."""
        plan = self.ground.plan(self.blueprint, proposal.architecture)
        made = self.ground.at(proposal.fidelity.get("resolution", 1.0))
        found = scored(made, made.plan(self.blueprint, proposal.architecture), list(dict(self.reference)), self.seed)
        shares = [share_beaten(found[name], values) for name, values in self.reference]
        minus = {f"minus_{name}": -value for name, value in found.items()}
        return {"rank_points": 100 * (1 - float(np.mean(shares))), **minus, **paper_costs(plan)}


def check_scores(ground: Ground, names: Sequence[str]) -> None:
    """Raise `BadInput` for scores that are not known, or cannot be had of the task."""
    unknown = [name for name in names if name not in SCORES]
    if unknown or not names:
        law = "a score of an untrained network is one that is known"
        raise BadInput(law, repr("".join(unknown[:1])), "--evaluator", f"there are: {', '.join(SCORES)}")
    if ground.signal.tokens:
        law = "scores of untrained networks are for pictures and series"
        raise BadInput(law, ground.task.name, "--evaluator", "take curve in place of zero-cost")
    labelled = [name for name in names if name in LABELLED]
    if labelled and "classes" not in ground.given:
        law = f"{labelled[0]} is of networks that tell classes apart"
        others = ", ".join(name for name in SCORES if name not in LABELLED)
        raise BadInput(law, ground.task.name, "--evaluator", f"there are: {others}")


def scored(ground: Ground, plan: Plan, names: Sequence[str], seed: int) -> dict[str, float]:
    """The scores of one network on one batch of train rows, the same for all; `LEAST` where one has no value."""
    rows = np.random.default_rng([seed, 31]).permutation(ground.task.size("train"))[:ROWS].tolist()
    (x,), y = ground.task.inputs("train", rows).values(), ground.task.targets("train", rows)
    if y is None:
        raise BadInput("scores of untrained networks need labels", "none", ground.task.name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # whatever a network draws
        module = ground.module(plan, seed)
        found = zero_cost(module, x, y, [name for name in names if name != "synflow"])
        if "synflow" in names:  # its input is made up, so what prepares real ones has no part in it
            found |= zero_cost(module.inner if isinstance(module, Onward) else module, x, y, ["synflow"])
    return {name: float(value) if np.isfinite(value) else LEAST for name, value in found.items()}


def reference_of(
    ground: Ground,
    blueprint: Blueprint,
    names: Sequence[str],
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Name -> values, ascending, of networks drawn at random."""
    rng = np.random.default_rng([seed, 32])
    found: list[Mapping[str, float]] = []
    for number in range(REFERENCES):
        found.append(scored(ground, ground.drawn(blueprint, rng)[1], names, seed))
        if progress:
            progress(number + 1)
    return {name: sorted(each[name] for each in found) for name in names}


def share_beaten(value: float, reference: Sequence[float]) -> float:
    """The share of ascending reference values that a value is above; of equals, half.

    A value between two of them has a share between theirs; one beyond all still counts as more the farther it is, but
    for less than one network of the reference: else the best networks, which a search finds, would all be equal.

    >>> [round(share_beaten(value, [1.0, 2.0, 2.0, 4.0]), 3) for value in (0.0, 1.0, 2.0, 3.0, 4.0, 8.0)]
    [-0.062, 0.125, 0.5, 0.688, 0.875, 1.143]
    """
    levels, counts = np.unique(np.asarray(reference, float), return_counts=True)
    if levels[0] <= value <= levels[-1]:
        return float(np.interp(value, levels, (np.cumsum(counts) - counts / 2) / counts.sum()))
    usual = levels[levels > LEAST]
    spread = float(np.ptp(usual)) if len(usual) > 1 else 1.0
    beyond = max(value - levels[-1], levels[0] - value)
    more = float(beyond / (beyond + spread) / counts.sum())
    return 1 + more if value > levels[-1] else -more
