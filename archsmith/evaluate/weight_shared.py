"""One set of weights for all architectures of a declared space: trained once, then asked about any of them.

Single path one-shot (Guo et al. 2020, "SPOS"): each step trains the network of one architecture drawn at random. With
more than one a step it is the sandwich rule (Yu & Huang 2019): the largest and the smallest network of the space, and
others drawn at random.

Weights are shared where two networks have the same module, with the same options and widths, at the same place, however
large the picture or long the sequence is there; a place within an operator that was picked is that operator's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.build import Blueprint, network
from archsmith.build.network import new
from archsmith.build.plan import Part as Plan
from archsmith.build.plan import Piece, pieces
from archsmith.compress.norms import recalibrate
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.sizes import extremes
from archsmith.evaluate.trained import validation_loss
from archsmith.space import JSON, Architecture
from archsmith.space.choice import digest
from archsmith.train import Fitted, Stateful, fit
from archsmith.train.recipe import Recipe, halving, losing, passes_of
from archsmith.trial import Proposal

COVERED, ROUNDS = 300, 10  # architectures whose modules are made before training, as long as there are new ones
SIZED = ("positions", "project", "resize")  # modules that differ with the size of the picture, or the length
CALIBRATED = 8  # batches that norms are measured anew on for one network


class Shared(nn.Module):
    """The modules of all networks of a space, by place, kind, options and input; made when first asked for."""

    def __init__(self, ground: Ground, blueprint: Blueprint, seed: int = 0) -> None:
        super().__init__()
        self.ground, self.blueprint, self.seed = ground, blueprint, seed
        self.bank = nn.ModuleDict()
        self.makes: dict[str, Callable[[], nn.Module]] = {}
        self.shapes: dict[str, list[int]] = {}  # of what a module gets, where it was first met
        self.trained: dict[str, dict[str, Tensor]] = {}
        self.begun: frozenset[str] | None = None  # what is trained: no more than was there when training began
        self.register_load_state_dict_pre_hook(_known)  # type: ignore[no-untyped-call]
        rng = np.random.default_rng([seed, 11])
        for _ in range(ROUNDS):
            if not self.cover([self.drawn(rng)[1] for _ in range(COVERED)]):
                break

    def cover(self, plans: Sequence[Plan]) -> bool:
        """Make the modules of these networks, before training begins; whether any of them is new."""
        known = len(self.bank)
        for plan in plans:
            for piece in pieces(plan):
                self.module_of(piece)
        return len(self.bank) > known

    def drawn(self, rng: np.random.Generator) -> tuple[Architecture, Plan]:
        """A random architecture that can run, with its plan."""
        return self.ground.drawn(self.blueprint, rng, prune=False)

    def module_of(self, piece: Piece) -> nn.Module:
        """The shared module of one place."""
        shape = list(piece.gets.shape)
        around = shape if piece.kind in SIZED else [piece.gets.channels, len(shape)]
        shape = self.shapes.setdefault(digest([piece.path, piece.kind, piece.options, around]), shape)
        return self.kept([piece.path, piece.kind, piece.options, shape], lambda: new(piece))

    def kept(self, name: JSON, make: Callable[[], nn.Module]) -> nn.Module:
        """The module of this name; made, its weights drawn from the seed and the name, when first asked for. Raises
        `ValueError` for one that has weights, where weights were trained and none of them are its own."""
        key = digest(name)
        if key not in self.bank:
            made = self.made(key, make)
            if self.trained and key not in self.trained and next(made.parameters(), None) is not None:
                raise ValueError("it has a layer that none of the networks had whose weights were trained")
            self.bank[key], self.makes[key] = made, make
            self.bank[key].load_state_dict(self.trained.get(key, self.bank[key].state_dict()))
        return self.bank[key]

    def made(self, key: str, make: Callable[[], nn.Module]) -> nn.Module:
        """A new module, its weights drawn from the seed and its key."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(digest([self.seed, key])[:8], 16))
            return self.ground.informed(make())

    def afresh(self) -> None:
        """All weights as they were before training: drawn anew, since a copy would take as much memory again. What was
        made since is there no longer."""
        for key in set(self.bank) - (self.bank.keys() if self.begun is None else self.begun):
            del self.bank[key]
        for key, module in self.bank.items():
            module.load_state_dict(self.made(key, self.makes[key]).state_dict())

    def modules_of(self, plan: Plan) -> Callable[[Piece], nn.Module]:
        """The module of each place of a plan."""
        return self.module_of

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Weights that were trained, from a `state_dict`; those of modules that are not there yet wait for them.
        Modules whose weights were not trained are there no longer."""
        for name, value in state.items():
            _, key, rest = name.split(".", 2)
            self.trained.setdefault(key, {})[rest] = value
        for key, module in list(self.bank.items()):
            if key in self.trained:
                module.load_state_dict(self.trained[key])
            elif next(module.parameters(), None) is not None:
                del self.bank[key]

    def begin(self, network: nn.Module | None = None) -> None:
        """Training begins, of the modules that are in `network`, or of all; the others are there no longer. What is
        made from here on, for a network that has what no other had, is not trained."""
        if network is not None:
            inside = set(network.modules())
            for key in [key for key, module in self.bank.items() if module not in inside]:
                del self.bank[key]
        self.begun = frozenset(self.bank)

    def learnt(self) -> dict[str, Tensor]:
        """The weights that were trained, as `restore` takes them."""
        begun = self.bank if self.begun is None else self.begun
        return {name: value for name, value in self.state_dict().items() if name.split(".", 2)[1] in begun}

    def network(self, plan: Plan) -> nn.Module:
        """The wrapped network of a plan, on the shared weights."""
        inner = network(plan, module_of=self.modules_of(plan))
        return self.ground.task.wrap(self.ground.reading(inner))


def _known(shared: Shared, state: dict[str, Tensor], *_: object) -> None:
    """Leave out of a state what was made after training had begun, for a network that had what no other has."""
    for name in [name for name in state if name.startswith("bank.") and name.split(".", 2)[1] not in shared.bank]:
        del state[name]


class Drawing(Stateful, Protocol):
    """What draws the plans of networks, and learns which to draw."""

    def __call__(self, rng: np.random.Generator, /) -> Plan:
        """One that is trained next."""
        ...


def train_shared(
    shared: Shared,
    recipe: Recipe,
    *,
    paths: int = 1,
    heaviest_of: int = 1,
    drawing: Callable[[Recipe], Drawing] | None = None,
    kept: AbstractSet[int] | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fitted:
    """Train the shared weights on labels, in place: each step the mean loss of `paths` networks; of more than one, the
    first is the largest and the second the smallest of the space (`sizes.extremes`).

    `heaviest_of`: of so many drawn the one with most weights is trained. What has weights is good only once they are
    trained, so under even draws networks that have few of them seem better than they are for long.
    `drawing`: what draws the plan of a network in a training by this recipe, at random unless told. `kept`: the train
    rows that it learns from, all unless told. `checkpoint`: a file that a killed training goes on from. Where a batch
    does not fit into memory, it is halved (`train.recipe.halving`).
    """
    task, seed = shared.ground.task, shared.seed

    outer: Sequence[Plan] = ()
    if paths > 1:
        rng = np.random.default_rng([seed, 14])
        outer = extremes(shared.ground, shared.blueprint, [shared.drawn(rng) for _ in range(COVERED)])
        for plan in outer:  # what none of the covered networks had is made before training
            shared.network(plan)

    def random(rng: np.random.Generator) -> Plan:
        plans = [shared.drawn(rng)[1] for _ in range(heaviest_of)]
        return plans[0] if heaviest_of == 1 else max(plans, key=lambda plan: paper_costs(plan)["parameters"])

    def attempt(recipe: Recipe) -> Fitted:
        learning = None if drawing is None else drawing(recipe)
        draw = learning or random

        def loss(rows: list[int]) -> Tensor:
            rng = np.random.default_rng([seed, 12, len(rows), *rows[:8]])
            plans = [*outer, *(draw(rng) for _ in range(paths - len(outer)))]
            each = [losing(shared.network(plan), task, recipe, seed)(rows) for plan in plans]
            return torch.stack(each).mean()

        passes = passes_of(task, recipe.batch, seed, kept)
        schedule = recipe.schedule(seed)
        return fit(shared, passes, loss, schedule, checkpoint=checkpoint, beside=learning, progress=progress)

    shared.begin()
    return halving(recipe, attempt, shared.afresh, checkpoint=checkpoint)


def halves(shared: Shared) -> tuple[set[int], list[int]]:
    """The train rows that weights learn from, and those from which is learnt which networks are good."""
    order = np.random.default_rng([shared.seed, 22]).permutation(shared.ground.task.size("train"))
    first, second = np.array_split(order, 2)
    return set(first.tolist()), sorted(second.tolist())


@dataclass(frozen=True, eq=False)
class WeightShared:
    """The evaluator of architectures by the shared weights: norms measured anew on train rows, then validation.

    Values: `loss_points` on validation, `parameters`, `macs`, `weight_bytes`.
    """

    shared: Shared
    calibration: Sequence[dict[str, Tensor]]

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Judge one architecture without training."""
        ground, blueprint = self.shared.ground, self.shared.blueprint
        _, wrapped = self.network(proposal.architecture)
        costs = paper_costs(ground.plan(blueprint, proposal.architecture))  # of what ships: without what nothing needs
        return {"loss_points": validation_loss(wrapped, ground.task), **costs}

    def network(self, architecture: Architecture) -> tuple[Plan, nn.Module]:
        """The plan of an architecture, and its network on the shared weights, ready to be judged."""
        plan = self.shared.ground.plan(self.shared.blueprint, architecture, prune=False)
        wrapped = self.shared.network(plan).eval()
        recalibrate(wrapped, self.calibration)
        return plan, wrapped


def calibration_of(ground: Ground, batch: int) -> list[dict[str, Tensor]]:
    """Train batches that norms are measured on, the same for every network."""
    rows = np.random.default_rng(13).permutation(ground.task.size("train"))[: CALIBRATED * batch]
    return [ground.task.inputs("train", rows[at : at + batch].tolist()) for at in range(0, len(rows), batch)]
