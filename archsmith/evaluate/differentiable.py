"""Architectures by gradient: all operators at once, each weighed, and the weights learnt along with the operators'.

Liu et al. 2019, "DARTS": the weights of a choice are a softmax of strengths alpha; w, the operators' own, learn on one
half of the train rows, alpha on the other:
  first order:   alpha <- alpha - step * grad_alpha L_B(w, alpha)
  second order:  the same at w' = w - xi grad_w L_A(w, alpha), less
                 xi (grad_alpha L_A(w + e d, alpha) - grad_alpha L_A(w - e d, alpha)) / 2e, d = grad_w' L_B(w', alpha)
Dong & Yang 2019, "GDAS": one operator of each choice is drawn a step by Gumbel noise, at a temperature that falls, and
only that one is computed. Chen et al. 2019, "P-DARTS": stages of growing depth with fewer operators, and dropout behind
skip connections. Training of alpha ends early where skip connections take over (Liang et al. 2019, "DARTS+").

L_A, L_B: losses on the halves; alpha: strengths, one of every value of every choice; tau: temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.build import Blueprint, network, planned
from archsmith.build.network import Times, Weights
from archsmith.build.plan import Part as Plan
from archsmith.build.spec import Relaxed, Strengths
from archsmith.errors import BadInput
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.weight_shared import Shared, halves
from archsmith.train import Fitted, fit
from archsmith.train.recipe import Recipe, halving, losing, passes_of

Method = Literal["darts", "gdas"]
HOT, COLD = 10.0, 0.1  # tau of GDAS at the beginning and at the end
MOVE, STEADY = 6.0, 3e-4  # how far strengths can go in all; the least step of one (DARTS's own)
ASIDE = 0.1  # of the steps, the operators learn alone first
SKIPS = 1 / 4  # of the choices that may settle on a skip connection (2 of DARTS's 8)
RULED_OUT = -1e4  # the strength of a value that is not to be taken
STAGES, KEPT = ((0.3, 0.0), (0.6, 0.4), (1.0, 0.7)), 0.6  # of P-DARTS: depth and dropout; of the values that go on
CHECKED = 20  # times it is looked whether skip connections have taken over


class Strength(nn.Module):
    """alpha: a vector of logits for every choice of a mixture."""

    def __init__(self, values: Mapping[str, Sequence[str]], seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng([seed, 21])
        self.values = {name: tuple(each) for name, each in values.items()}
        first = [torch.from_numpy(rng.normal(0, 1e-3, len(each))).float() for each in self.values.values()]
        self.logits = nn.ParameterList(nn.Parameter(each) for each in first)

    def weights(self, tau: float | None, rng: np.random.Generator) -> dict[str, dict[str, Tensor]]:
        """The softmax of each choice; with `tau` a sample of it, one value of each, that gradients go through."""
        found: dict[str, dict[str, Tensor]] = {}
        for (name, values), logit in zip(self.values.items(), self.logits, strict=True):
            if tau is None:
                chance = logit.softmax(0)
            else:
                noise = torch.from_numpy(rng.gumbel(size=len(values))).float()
                soft = ((logit.log_softmax(0) + noise) / tau).softmax(0)
                taken = nn.functional.one_hot(soft.argmax(), len(values)).to(soft)
                chance = taken + (soft - soft.detach())
            found[name] = dict(zip(values, chance.unbind(), strict=True))
        return found

    def strengths(self, noise: np.random.Generator | None = None) -> Strengths:
        """As plain numbers; with `noise` those of a draw (Gumbel: the strongest is then a sample of the softmax)."""
        found: dict[str, dict[str, float]] = {}
        for (name, values), logit in zip(self.values.items(), self.logits, strict=True):
            extra = np.zeros(len(values)) if noise is None else noise.gumbel(size=len(values))
            found[name] = dict(zip(values, (logit.detach().double().numpy() + extra).tolist(), strict=True))
        return found

    def copy(self) -> list[Tensor]:
        """A copy of alpha."""
        return [p.detach().clone() for p in self.parameters()]

    def put(self, alpha: Sequence[Tensor]) -> None:
        """Make alpha what it was."""
        for p, former in zip(self.parameters(), alpha, strict=True):
            p.data.copy_(former)


@dataclass(eq=False)
class Mixture:
    """A mixed network on shared weights, and the strengths of its choices. `left`: the values that they still have."""

    shared: Shared
    left: Mapping[str, Sequence[Any]] | None = None
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        ground = self.shared.ground
        plan = mixed_plan(ground, self.shared.blueprint, self.left)
        inner = network(plan, module_of=self.shared.module_of, weights=self.weights)
        self.wrapped = ground.task.wrap(ground.reading(inner))
        times = [part for part in self.wrapped.modules() if isinstance(part, Times)]
        values: dict[str, list[str]] = {}
        for part in times:
            if part.value not in values.setdefault(part.choice, []):
                values[part.choice].append(part.value)
        self.skips = {(part.choice, part.value) for part in times if part.skips}
        self.strength = Strength(values, self.shared.seed)

    @property
    def relaxed(self) -> Relaxed:
        """The declared network that is mixed, and what strengths come down to."""
        return relaxed_of(self.shared.blueprint)

    @property
    def most_skips(self) -> int:
        """How many of the choices that an architecture is made of may be a skip connection."""
        return max(1, round(SKIPS * len(self.relaxed.kept(self.strength.strengths()))))

    def skipping(self) -> list[tuple[str, float]]:
        """The choices that would settle on a skip connection, and how strong that is, the weakest first."""
        strengths, found = self.strength.strengths(), []
        for name, value in self.relaxed.kept(strengths).items():
            if (name, value) in self.skips:
                of = strengths[name]
                found.append((name, of[value] - float(np.logaddexp.reduce(list(of.values())))))
        return sorted(found, key=lambda pair: pair[1])

    def thin(self) -> None:
        """Take the weakest skip connections out of the running until no more are left than may be."""
        at, ruled = list(self.strength.values), set[str]()
        while len(skipping := self.skipping()) > self.most_skips:  # another edge may come in with a skip of its own
            name = next((each for each, _ in skipping if each not in ruled), None)
            if name is None:
                return
            ruled.add(name)
            for value in self.strength.values[name]:
                if (name, value) in self.skips:
                    self.strength.logits[at.index(name)].data[self.strength.values[name].index(value)] = RULED_OUT


@dataclass(frozen=True)
class Mixed:
    """How a differentiable training went: step at which skip connections had taken over and strengths were left as they
    had been before (None: they did not)."""

    fitted: Fitted
    ended: int | None


def train_mixture(
    mixture: Mixture,
    recipe: Recipe,
    *,
    method: Method = "darts",
    second_order: bool = False,
    dropout: float = 0.0,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Mixed:
    """Learn the operators' weights and the strengths, in place; where a batch does not fit into memory, it is halved
    (`train.recipe.halving`). `dropout`: behind skip connections; it falls to 0. `checkpoint`: a file that a killed
    training goes on from."""
    shared, task, seed = mixture.shared, mixture.shared.ground.task, mixture.shared.seed
    first, _ = halves(shared)
    before = mixture.strength.copy()

    def attempt(recipe: Recipe) -> Mixed:
        loss = _Alternating(mixture, recipe, method, second_order, dropout)
        passes = passes_of(task, recipe.batch, seed, first)
        schedule = recipe.schedule(seed)
        fitted = fit(shared, passes, loss, schedule, checkpoint=checkpoint, beside=loss, progress=progress)
        return Mixed(fitted, loss.ended)

    def afresh() -> None:
        shared.afresh()
        mixture.strength.put(before)

    shared.begin(mixture.wrapped)
    mixed = halving(recipe, attempt, afresh, checkpoint=checkpoint)
    mixture.weights.dropout = 0.0
    return mixed


class _Alternating:
    """rows -> the loss that the operators' weights go down by; before, a step of the strengths on the other half."""

    def __init__(self, mixture: Mixture, recipe: Recipe, method: Method, second_order: bool, dropout: float) -> None:
        self.mixture, self.recipe, self.method = mixture, recipe, method
        self.second_order, self.dropout = second_order, dropout
        shared, strength = mixture.shared, mixture.strength
        _, self.others = halves(shared)
        rate = max(STEADY, MOVE / recipe.steps)
        self.adam = torch.optim.Adam(strength.parameters(), rate, betas=(0.5, 0.999), weight_decay=1e-3)
        self.lose = losing(mixture.wrapped, shared.ground.task, recipe, shared.seed)
        self.done, self.before = 0, strength.copy()
        self.ended: int | None = None  # the step at which skip connections had taken over

    def __call__(self, rows: list[int]) -> Tensor:
        weights, strength, steps = self.mixture.weights, self.mixture.strength, self.recipe.steps
        if not torch.is_grad_enabled():  # only tried out
            weights.of = strength.weights(None, np.random.default_rng(0))
            return self.lose(rows)
        rng = np.random.default_rng([self.mixture.shared.seed, 23, self.done])
        tau = HOT * (COLD / HOT) ** (self.done / steps) if self.method == "gdas" else None
        weights.dropout = self.dropout * (1 - self.done / steps)
        if self.ended is None and self.done >= ASIDE * steps:
            weights.of = strength.weights(tau, rng)
            self._move(rows, [self.others[i] for i in rng.integers(len(self.others), size=len(rows))])
            if self.done % max(1, steps // CHECKED) == 0:
                self._check()
        weights.of = {
            name: {value: weight.detach() for value, weight in of.items()}
            for name, of in strength.weights(tau, rng).items()
        }
        self.done += 1
        return self.lose(rows)

    def state_dict(self) -> dict[str, Any]:
        """Steps and strengths."""
        plain = {"done": self.done, "ended": self.ended, "before": self.before}
        return {**plain, "strengths": self.mixture.strength.copy(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from there."""
        self.done, self.ended, self.before = state["done"], state["ended"], state["before"]
        self.mixture.strength.put(state["strengths"])
        self.adam.load_state_dict(state["adam"])

    def _move(self, rows: list[int], others: list[int]) -> None:
        """A step of the strengths."""
        if self.second_order:
            slopes = _unrolled(self.mixture, self.lose, rows, others, self.recipe.learning_rate)
        else:
            slopes = _slopes(self.mixture, self.lose(others))
        if not all(bool(torch.isfinite(slope).all()) for slope in slopes):
            return  # as a step of the weights is skipped
        for p, slope in zip(self.mixture.strength.parameters(), slopes, strict=True):
            p.grad = slope
        self.adam.step()

    def _check(self) -> None:
        """Where skip connections have taken over, end, with the strengths of the check before."""
        if len(self.mixture.skipping()) > self.mixture.most_skips:
            self.ended = self.done
            self.mixture.strength.put(self.before)
        else:
            self.before = self.mixture.strength.copy()


def _slopes(mixture: Mixture, loss: Tensor) -> list[Tensor]:
    """The gradient of a loss by the strengths."""
    parameters = list(mixture.strength.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if slope is None else slope for p, slope in zip(parameters, found, strict=True)]


def _unrolled(
    mixture: Mixture, lose: Callable[[list[int]], Tensor], rows: list[int], others: list[int], xi: float
) -> list[Tensor]:
    """The gradient by the strengths after one step `xi` of the operators' weights w, with finite differences for what
    it has of second order."""
    w = [p for p in mixture.wrapped.parameters() if p.requires_grad]
    kept = [p.detach().clone() for p in w]
    down = torch.autograd.grad(lose(rows), w, allow_unused=True, retain_graph=True)
    _shift(w, kept, down, -xi)
    alphas = list(mixture.strength.parameters())
    both = torch.autograd.grad(lose(others), [*alphas, *w], allow_unused=True, retain_graph=True)
    slopes, direction = both[: len(alphas)], both[len(alphas) :]
    norm = float(torch.sqrt(sum((d * d).sum() for d in direction if d is not None) + torch.tensor(1e-20)))
    epsilon = 0.01 / norm
    around = []
    for sign in (1.0, -1.0):
        _shift(w, kept, direction, sign * epsilon)
        around.append(torch.autograd.grad(lose(rows), alphas, allow_unused=True, retain_graph=True))
    _shift(w, kept, [None] * len(w), 0.0)  # whatever the direction was
    zero = [torch.zeros_like(p) for p in alphas]
    slope, above, below = (
        [z if g is None else g for z, g in zip(zero, given, strict=True)] for given in (slopes, *around)
    )
    return [s - xi * (a - b) / (2 * epsilon) for s, a, b in zip(slope, above, below, strict=True)]


def _shift(w: Sequence[nn.Parameter], kept: Sequence[Tensor], by: Sequence[Tensor | None], scale: float) -> None:
    """Put weights where they were, moved by `scale` times a direction."""
    for p, old, each in zip(w, kept, by, strict=True):
        p.data.copy_(old if each is None else old + scale * each)


def train_progressively(
    shared_of: Callable[[float], Shared],
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Mixture, Mixed]:
    """P-DARTS: three stages of growing depth, each of a third of the steps, and after each only the stronger values of
    every choice go on; the mixture of the last, whose skip connections are then thinned to the share that may be.

    `shared_of`: shared weights of networks of so much of the full depth; those of the last stage have all of it.
    `checkpoint`: by its name each stage has a file, from which a killed training takes the last steps of those that had
    ended again, and goes on.
    """
    left: dict[str, list[str]] | None = None
    steps = max(1, recipe.steps // len(STAGES))
    for number, (depth, dropout) in enumerate(STAGES):
        shared = shared_of(depth)
        mixture = Mixture(shared, left)
        tell = None if progress is None else partial(_onward, progress, number * steps)
        own = checkpoint and checkpoint.with_suffix(f".stage{number}")
        stage = replace(recipe, steps=steps)
        mixed = train_mixture(mixture, stage, dropout=dropout, checkpoint=own, progress=tell)
        left = {
            name: sorted(of, key=of.__getitem__, reverse=True)[: max(2, round(KEPT * len(of)))]
            for name, of in mixture.strength.strengths().items()
        }
    mixture.thin()
    return mixture, mixed


def _onward(progress: Callable[[int], None], before: int, step: int) -> None:
    progress(before + step)


def relaxed_of(blueprint: Blueprint) -> Relaxed:
    """What of a space can be mixed. Raises `BadInput` for one that declares nothing of the kind."""
    found = getattr(blueprint, "relaxed", None)
    if not isinstance(found, Relaxed) or not found.declared.space.choices:
        law = "a differentiable search mixes the operators of a declared space"
        raise BadInput(law, "this one declares none", "", "choose another space, or spos")
    return found


def mixed_plan(ground: Ground, blueprint: Blueprint, left: Mapping[str, Sequence[Any]] | None = None) -> Plan:
    """The plan of a mixture. Raises `BadInput` for a space of which there is none, or not for this task."""
    return ground.check(planned(relaxed_of(blueprint).declared.mixture(ground.given, left), ground.signal))
