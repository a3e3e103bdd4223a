"""A declared architecture made for real: built, trained on labels from nothing, and judged on validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.build import Blueprint, Declared, Signal, network, planned
from archsmith.build.layers import Bag, texts_with
from archsmith.build.plan import Part as Plan
from archsmith.cost.cpu import lacks_bf16
from archsmith.errors import ArchsmithError, BadInput
from archsmith.evaluate.paper import paper_costs
from archsmith.evaluate.trained import validation_loss, validation_risk
from archsmith.space import Architecture, Value
from archsmith.tasks import SeriesForecasting
from archsmith.tasks.task import Part, Task
from archsmith.train import Ends, Fitted
from archsmith.train.fit import OPTIMISERS
from archsmith.train.parallel import Share, agreed_on
from archsmith.train.recipe import CHOSEN, Recipe, teach
from archsmith.trial import Proposal

RESOURCES = ("epochs", "share", "resolution")  # of a training that a fidelity asks for less of
OF_PICTURES = ("shift", "flip", "turn", "cutout")  # what a recipe varies of them
DRAWN = 100  # architectures, of which one must be able to run
TIMED_STEPS, TIMED_SECONDS = (4, 16, 64), 1.0  # so many steps are timed, until they take so long
SHORTEST_STEP = 1e-4  # seconds
LESS = 0.9  # of the time that fp32 takes bf16 must take
EARLY = 0.35  # share of the steps by which a best check is early
COUNTED = 256  # texts that are counted together
SHORTEST = 32  # tokens that a network of texts can read at least


@dataclass(frozen=True, eq=False)
class Ground:
    """What networks of a task are built on: the task, what comes in, and what the task gives to spaces."""

    task: Task
    signal: Signal
    given: Mapping[str, Value]
    shrunk: bool = False
    counted: dict[tuple[int, int], tuple[int, Tensor]] = field(default_factory=dict)  # of runs in train texts

    @classmethod
    def of(cls, task: Task) -> Ground:
        """From the task's own example: pictures, series, or tokens with their mask. Raises `BadInput` for any other."""
        inputs = task.inputs("train", [0, 1])
        given: dict[str, Value] = {}
        if hasattr(task, "classes"):
            given["classes"] = given["outputs"] = int(task.classes)
        elif hasattr(task, "outputs"):
            given["outputs"] = int(task.outputs)
        (name, first), *_ = inputs.items()
        if name == "input_ids":
            parts: tuple[Part, ...] = ("train", "validation", "holdout")
            longest = max(SHORTEST, *(int(task.lengths(part).max(initial=0)) for part in parts))
            tokenizer = getattr(task, "tokenizer", None)
            given["vocabulary"] = len(tokenizer) if tokenizer is not None else 0
            return cls(task, Signal((longest,), tokens=True), given)
        if not first.is_floating_point():
            law = "networks are built for pictures, series or texts"
            raise BadInput(law, f"{name}, {first.dtype}", task.name, "give a model to optimise instead")
        return cls(task, Signal(tuple(first.shape[1:])), given)

    @property
    def gives(self) -> tuple[int, ...]:
        """The shape that a network gives for a row: the task's outputs, or logits of all tokens at each place of a text
        that is to be gone on with."""
        if "outputs" in self.given:
            return (int(self.given["outputs"]),)
        return (*self.signal.shape, int(self.given["vocabulary"]))

    def check(self, plan: Plan) -> Plan:
        """The plan, if it gives what the task needs. Raises `BadInput`."""
        if plan.gives.shape != self.gives:
            each = len(self.gives) > 1
            law = f"a network of this task gives {' x '.join(map(str, self.gives))} numbers a row"
            remedy = "end it with a linear layer at each place" if each else "end it with a pool and a linear layer"
            raise BadInput(law, str(plan.gives), self.task.name, remedy)
        if len(self.gives) > 1 and not looks_back(plan, self.signal, self.gives[-1]):
            law = "a network that foretells each token sees nothing that comes after it"
            remedy = "let attention and convolutions be causal, and recurrence go one way"
            raise BadInput(law, "an output that a later token changes", self.task.name, remedy)
        return plan

    def at(self, resolution: float) -> Ground:
        """The same with pictures of this share of their sides, that networks see in place of the whole ones. Raises
        `BadInput` where there are no pictures."""
        if resolution == 1:
            return self
        if len(self.signal.shape) != 3 or not 0 < resolution < 1:
            law = "a resolution is a share of a picture's sides, from 0 to 1"
            raise BadInput(law, f"{resolution:g}", self.task.name, "leave it out")
        channels, *sides = self.signal.shape
        shape = (channels, *(max(1, round(resolution * side)) for side in sides))
        return replace(self, signal=Signal(shape), shrunk=True)

    def plan(self, blueprint: Blueprint, architecture: Mapping[str, Value], prune: bool = True) -> Plan:
        """The plan of one architecture. Raises `BadInput` where it cannot run, or its output is not the task's."""
        return self.check(self.sketch(blueprint, architecture, prune))

    def sketch(self, blueprint: Blueprint, architecture: Mapping[str, Value], prune: bool = True) -> Plan:
        """The plan, whatever it gives. Raises `BadInput` where it cannot run."""
        unknown = blueprint.needs - set(self.given)
        if unknown:
            law = "a space speaks of what its task has"
            raise BadInput(law, f"${min(unknown)}", self.task.name, "choose a space for this kind of task")
        return planned(blueprint.static(architecture, self.given), self.signal, prune=prune)

    def drawn(self, blueprint: Blueprint, rng: np.random.Generator, prune: bool = True) -> tuple[Architecture, Plan]:
        """A random architecture that can run, with its plan. Raises `BadInput`, of the last one, where none of many
        can."""
        for attempt in range(DRAWN):
            point = blueprint.space.sample(rng)
            try:
                return point, self.plan(blueprint, point, prune)
            except BadInput:
                if attempt == DRAWN - 1:
                    raise
        raise AssertionError

    def module(self, plan: Plan, seed: int) -> nn.Module:
        """A network that takes what the task's models take, by name."""
        return self.reading(self.informed(network(plan, seed)))

    def informed(self, module: nn.Module) -> nn.Module:
        """The module, whose bags know in how many train texts each run is."""
        for part in module.modules():
            if isinstance(part, Bag):
                part.know(*self.texts_with(part.longest, part.rows))
        return module

    def texts_with(self, longest: int, rows: int) -> tuple[int, Tensor]:
        """How many train texts there are, and how many have a run of tokens that is hashed into each row; counted
        once."""
        if (longest, rows) not in self.counted:
            batches = self.task.batches("train", COUNTED, np.random.default_rng(0))
            read = (self.task.inputs("train", each) for each in batches)
            there = ((inputs["input_ids"], inputs["attention_mask"] != 0) for inputs in read)
            self.counted[longest, rows] = texts_with(there, longest, rows)
        return self.counted[longest, rows]

    def reading(self, built: nn.Module) -> nn.Module:
        """A built network that takes what the task's models take, by name."""
        if isinstance(self.task, SeriesForecasting):
            return Onward(built, self.task.scaling.at, self.signal.channels, self.task.scaling.horizon)
        if self.shrunk:
            return Shrinking(built, self.signal.around)
        return Reading(built) if self.signal.tokens else built


@lru_cache(maxsize=1024)
def looks_back(plan: Plan, signal: Signal, vocabulary: int) -> bool:
    """Whether what an untrained network gives at each place stays the same whatever tokens come later: tried out."""
    length = signal.shape[0]
    rng = torch.Generator().manual_seed(0)
    first = torch.randint(vocabulary, (2, length), generator=rng)
    there = torch.ones_like(first)
    module = network(plan, 0).eval()
    with torch.inference_mode():
        before = module(first, there)
        for place in {length // 2, length - 1}:
            second = first.clone()
            second[:, place:] = (first[:, place:] + 1) % vocabulary
            if not torch.allclose(module(second, there)[:, :place], before[:, :place], atol=1e-5):
                return False
    return True


class Reading(nn.Module):
    """A network of texts under the names that models of texts have."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None, **_: object
    ) -> Tensor:
        """(B, L) int64 each -> (B, outputs)."""
        out: Tensor = self.inner(input_ids, attention_mask)
        return out


class Onward(nn.Module):
    """A network of series that sees how the targets were beside their last values, and gives how they go on from there:
    the level of a series drifts, and what it drifts to is in no training data (Zeng et al. 2023, NLinear)."""

    which: Tensor  # (columns,), 1 for targets

    def __init__(self, inner: nn.Module, targets: Sequence[int], columns: int, horizon: int) -> None:
        super().__init__()
        self.inner, self.targets, self.horizon = inner, list(targets), horizon
        self.register_buffer("which", torch.zeros(columns), persistent=False)
        self.which[self.targets] = 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, history, columns) -> (B, horizon x targets)."""
        last = x[:, -1]
        out: Tensor = self.inner(x - last[:, None] * self.which) + last[:, self.targets].repeat(1, self.horizon)
        return out


RANGES = {
    "batch": (1, 2**16),
    "smoothing": (0.0, 1.0),
    "warmup": (0.0, 1.0),
    "learning_rate": (0.0, 1e3),
    "turn": (0, 360),
}
"""Of what a space leaves open of its recipe, what it may be where that is not any number from 0 on."""


def check_recipe(blueprint: Blueprint, ground: Ground) -> None:
    """Raise `BadInput` for a space that leaves open of its recipe what there is not, or that has no number there."""
    for name, told in getattr(blueprint, "recipe", {}).items():
        if name == "smoothing" and "classes" not in ground.given:
            raise BadInput("smoothing is of labels of classes", ground.task.name, "recipe", "leave it out")
        pictures = len(ground.signal.shape) == 3
        if (name in OF_PICTURES and not pictures) or (name == "mixup" and ground.signal.tokens):
            of = "pictures" if name in OF_PICTURES else "numbers"
            raise BadInput(f"{name} is of {of}", ground.task.name, "recipe", "leave it out")
        if name not in CHOSEN:
            known = f"there are: {', '.join(CHOSEN)}"
            raise BadInput("a space's recipe is of what a training has", repr(name), "recipe", known)
        choice = blueprint.space.choices.get(told[1:]) if isinstance(told, str) else None
        kind = type(getattr(Recipe(steps=1), name))
        for value in (told,) if choice is None else choice.values:
            fits = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (
                kind is bool
            )
            least, most = RANGES.get(name, (0.0, math.inf))
            if not fits or not (value in OPTIMISERS if isinstance(value, str) else least <= value <= most):
                law = (
                    f"one of {', '.join(OPTIMISERS)}"
                    if kind is str
                    else f"a {kind.__name__} from {least:g} to {most:g}"
                )
                raise BadInput(f"{name} is {law}", repr(value), "recipe", "change the space")


def check_resource(ground: Ground, resource: object) -> None:
    """Raise `BadInput` for a resource of fidelities that networks of the task are not trained with less of."""
    known = [each for each in RESOURCES if each != "resolution" or len(ground.signal.shape) == 3]
    if resource not in known:
        law, remedy = "the resource of a fidelity is one that training has", f"there are: {', '.join(known)}"
        raise BadInput(law, repr(resource), "--strategy", remedy)


class Shrinking(nn.Module):
    """A network that sees pictures at a smaller size: each pixel the mean of those that it covers."""

    def __init__(self, inner: nn.Module, size: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.size = inner, (size[0], size[1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, height, width) -> (B, outputs)."""
        out: Tensor = self.inner(nn.functional.adaptive_avg_pool2d(x, self.size))
        return out


@dataclass(frozen=True, eq=False)
class FromScratch:
    """The evaluator of declared architectures by what they reach after a recipe.

    Values: `loss_points` (100 - quality on validation), `parameters`, `macs`, `weight_bytes`. A proposal's fidelity may
    ask for less: `epochs` (steps in its place), `share` of the train rows, `resolution` (of the sides of pictures);
    costs are those at full size.
    """

    ground: Ground
    blueprint: Blueprint
    recipe: Recipe
    seed: int = 0
    progress: Callable[[int], None] | None = None

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Build, train and judge one architecture."""
        plan = self.ground.plan(self.blueprint, proposal.architecture)
        made = replace(self, ground=self.ground.at(proposal.fidelity.get("resolution", 1.0)))
        seen = made.ground.plan(self.blueprint, proposal.architecture)
        wrapped, _ = made.trained(seen, self.recipe_at(proposal))
        return {"loss_points": validation_loss(wrapped, self.ground.task), **paper_costs(plan)}

    def trained(
        self,
        plan: Plan,
        recipe: Recipe,
        *,
        checks: int = 0,
        ends: Ends | None = None,
        checkpoint: Path | None = None,
        share: Share | None = None,
    ) -> tuple[nn.Module, Fitted]:
        """The wrapped network after training, and how that went. With `checks` it is what it was at that of them where
        its loss on validation was least; with `ends`, which is told the points lost there, training may end before its
        schedule does (`train.fit`). `checkpoint`: a file that a killed training goes on from. `share`: of several
        processes, which one."""
        module = self.ground.module(plan, self.seed)
        wrapped = self.ground.task.wrap(module)
        task = self.ground.task
        judged = validation_loss if ends else validation_risk
        validate = partial(judged, wrapped, task) if checks else None
        fitted = teach(
            wrapped, task, recipe, self.seed,
            validate=validate, checks=checks, ends=ends, checkpoint=checkpoint, progress=self.progress, share=share,
        )  # fmt: skip
        numbers = [each for each in module.state_dict().values() if each.is_floating_point()]
        if fitted.skipped * 2 > fitted.steps or not all(bool(torch.isfinite(each).all()) for each in numbers):
            raise ArchsmithError("training must stay finite; that of this network did not. Lower the learning rate.")
        return wrapped.eval(), fitted

    def annealed(
        self, plan: Plan, recipe: Recipe, *, checks: int, checkpoint: Path | None = None, share: Share | None = None
    ) -> tuple[nn.Module, Fitted]:
        """As `trained` with checks. Where validation was at its best early, the network was learning the train rows by
        heart from there on: it is trained once more, for twice the steps that it took to get there, since a learning
        rate that falls to nothing goes half as far in them. What loses less on validation stays."""
        wrapped, fitted = self.trained(plan, recipe, checks=checks, checkpoint=checkpoint, share=share)
        step, least = min(reversed(fitted.validated), key=lambda check: check[1])
        step = agreed_on(step * recipe.steps // fitted.steps, share)  # there are more where batches were halved
        if not checks <= step <= EARLY * recipe.steps:
            return wrapped, fitted
        shorter, second = replace(recipe, steps=2 * step), checkpoint and checkpoint.with_suffix(".shorter")
        try:
            again, refitted = self.trained(plan, shorter, checks=checks, checkpoint=second, share=share)
        except ArchsmithError:
            if share is not None:  # the others may wait for this process
                raise
            return wrapped, fitted
        better = min(value for _, value in refitted.validated) < least
        module, how = (again, refitted) if better else (wrapped, fitted)
        return module, replace(how, seconds=fitted.seconds + refitted.seconds)

    def step_seconds(self, plan: Plan, autocast: bool = False) -> float:
        """Of a training step."""
        recipe = replace(self.recipe, autocast=autocast)
        return seconds_a_step(lambda steps: self.trained(plan, replace(recipe, steps=steps)))

    def recipe_at(self, proposal: Proposal) -> Recipe:
        """The recipe with what a proposal says of it, and asks for less of."""
        fidelity, recipe = proposal.fidelity, self.recipe
        if isinstance(self.blueprint, Declared):
            told = self.blueprint.trained_by(proposal.architecture)
            recipe = replace(recipe, **told)  # type: ignore[arg-type]  # `check_recipe` has looked at it
        if "share" in fidelity:
            recipe = replace(recipe, share=fidelity["share"])
        if "epochs" in fidelity:
            a_pass = max(1, round(recipe.share * self.ground.task.size("train") / recipe.batch))
            recipe = replace(recipe, steps=max(1, round(fidelity["epochs"] * a_pass)))
        return recipe


def seconds_a_step(train: Callable[[int], object], least: int = 1) -> float:
    """Of a training that is told its steps, without what comes once; over more steps where they are quick, since
    batches of texts differ in length. `least`: steps of a training that is no other than longer ones."""

    def took(steps: int) -> float:
        began = time.perf_counter()
        train(steps)
        return time.perf_counter() - began

    took(least)
    once = min(took(least), took(least))
    for steps in TIMED_STEPS:
        more = took(least + steps) - once
        if more > TIMED_SECONDS:
            break
    return max(SHORTEST_STEP, more / steps)


def quicker(seconds: Callable[[bool], Sequence[float]]) -> tuple[bool, list[float]]:
    """Whether steps are taken in bf16 (`Recipe.autocast`), and what each takes then: where the processor has it, and it
    takes less by a tenth in all, and all can be trained in it. `seconds`: of steps, told whether they are in bf16.

    >>> quicker(lambda autocast: [2.0, 3.0])
    (False, [2.0, 3.0])
    """
    plain = list(seconds(False))
    try:
        if lacks_bf16() is None and sum(rounded := list(seconds(True))) < LESS * sum(plain):
            return True, rounded
    except (ArchsmithError, RuntimeError):
        pass  # a layer that has no bf16, or does not stay finite in it
    return False, plain
