"""One-shot search from nothing: the weights of all networks of a space are trained at once, then networks are judged on
them without training each.

A method trains the weights and may say which networks it would have tried first; the search that follows is an ordinary
study of regularised evolution that begins with them. `RUN/shared` keeps the weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from archsmith.build import SPACES, Blueprint
from archsmith.errors import BadInput
from archsmith.evaluate import from_scratch
from archsmith.evaluate.controlled import train_controlled
from archsmith.evaluate.differentiable import Mixture, mixed_plan, train_mixture, train_progressively
from archsmith.evaluate.elastic import Elastic
from archsmith.evaluate.shrinking import train_shrinking
from archsmith.evaluate.weight_shared import Shared, WeightShared, calibration_of, train_shared
from archsmith.jobs.ground import Scratch, grounded
from archsmith.jobs.pacing import recipe_of, recipes
from archsmith.jobs.scratch import check_costs, within_latency
from archsmith.model.pretrained import read_json
from archsmith.report.terminal import Progress
from archsmith.search import listed, regularised_evolution
from archsmith.search.policy import Policy
from archsmith.space import JSON, Architecture
from archsmith.study import RunDirectory
from archsmith.train import Fitted
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal, Strategy

TRIED = 3  # steps that a method is timed over
MOST_DRAWN = 100  # networks, of which the one with most weights is trained
DRAWS = 50  # for one architecture that is new


class SharedOf(Protocol):
    """New weights of networks of a share of their depth, of the kind that is told."""

    def __call__(self, depth: float, kind: type[Shared] = Shared, /) -> Shared: ...


@dataclass(frozen=True)
class Lesson:
    """What a method trains: new weights of a kind, by a recipe, in a file that a killed training goes on from."""

    shared_of: SharedOf
    recipe: Recipe
    checkpoint: Path | None = None
    progress: Callable[[int], None] | None = None  # told of each step that is done

    @property
    def kept(self) -> dict[str, Any]:
        """What all trainings are told alike."""
        return {"checkpoint": self.checkpoint, "progress": self.progress}


@dataclass(frozen=True)
class Learnt:
    """What a method has trained: the weights, how that went, and architectures in the order in which it would try
    them, which may be without end. `closed`: of others there are operators that nobody trained to the end."""

    shared: Shared
    fitted: Fitted
    first: Iterator[Architecture]
    ended: int | None = None
    closed: bool = False


class Method(Protocol):
    """How shared weights are trained; any further argument is an option of the strategy."""

    def __call__(self, lesson: Lesson, /) -> Learnt: ...


def single_paths(lesson: Lesson, paths: int = 1, heaviest_of: int = 1) -> Learnt:
    """SPOS, and with several paths a step the sandwich rule."""
    shared = lesson.shared_of(1.0)
    fitted = train_shared(shared, lesson.recipe, paths=paths, heaviest_of=heaviest_of, **lesson.kept)
    return Learnt(shared, fitted, iter(()))


def darts(lesson: Lesson, second_order: bool = False) -> Learnt:
    """DARTS."""
    mixture = Mixture(shared := lesson.shared_of(1.0))
    mixed = train_mixture(mixture, lesson.recipe, second_order=second_order, **lesson.kept)
    return Learnt(shared, mixed.fitted, settled(mixture), mixed.ended)


def gdas(lesson: Lesson) -> Learnt:
    """GDAS."""
    mixture = Mixture(shared := lesson.shared_of(1.0))
    mixed = train_mixture(mixture, lesson.recipe, method="gdas", **lesson.kept)
    return Learnt(shared, mixed.fitted, settled(mixture), mixed.ended)


def p_darts(lesson: Lesson) -> Learnt:
    """P-DARTS."""
    mixture, mixed = train_progressively(lesson.shared_of, lesson.recipe, **lesson.kept)
    return Learnt(mixture.shared, mixed.fitted, settled(mixture), mixed.ended, closed=True)


def enas(lesson: Lesson) -> Learnt:
    """ENAS."""
    shared = lesson.shared_of(1.0)
    controller = Policy(shared.blueprint.space, "reinforce", "recurrent", lesson.recipe.steps)
    fitted, draws = train_controlled(shared, controller, lesson.recipe, **lesson.kept)
    return Learnt(shared, fitted, draws)


def ofa(lesson: Lesson, paths: int = 4, distil: float = 0.5) -> Learnt:
    """Progressive shrinking of elastic weights."""
    shared = lesson.shared_of(1.0, Elastic)
    assert isinstance(shared, Elastic)
    fitted = train_shrinking(shared, lesson.recipe, paths=paths, distil=distil, **lesson.kept)
    return Learnt(shared, fitted, iter(()))


METHODS: Mapping[str, Method] = {
    "spos": single_paths,
    "sandwich": partial(single_paths, paths=4),
    "darts": darts,
    "gdas": gdas,
    "p-darts": p_darts,
    "enas": enas,
    "ofa": ofa,
}
MIXING = ("darts", "gdas", "p-darts")
SETTLING = (*MIXING, "enas")  # that say themselves what is tried first


def method_of(name: str, options: Mapping[str, Any]) -> Method | None:
    """The method of a strategy with its options; None for a strategy of another kind. Raises `BadInput`."""
    if name not in METHODS:
        return None
    known = dict(list(inspect.signature(METHODS[name]).parameters.items())[1:])
    if unknown := [each for each in options if each not in known]:
        law = f"an option of {name} is one that it has"
        raise BadInput(law, unknown[0], "--strategy", f"there are: {', '.join(known) or 'none'}")
    for option, value in options.items():
        kind = type(known[option].default)
        if kind is int and (type(value) is not int or not 1 <= value <= MOST_DRAWN):
            law = f"{option} of {name} is how many networks are drawn for a step, from 1 to {MOST_DRAWN}"
            raise BadInput(law, repr(value), "--strategy", f"write it like {name}:{option}=4")
        if kind is float and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            raise BadInput(f"{option} of {name} is a share from 0 to 1", repr(value), "--strategy")
        if kind is bool and type(value) is not bool:
            raise BadInput(f"{option} of {name} is true or false", repr(value), "--strategy")
    return partial(METHODS[name], **options)


def check(name: str, scratch: Scratch | None) -> None:
    """Raise `BadInput` for a method that has nothing to train, or cannot run on the space."""
    if scratch is None:
        raise BadInput(f"{name} trains networks that share weights", "none", "--strategy", "give --task and --data")
    if open_ := sorted(getattr(grounded(scratch)[1], "recipe", {})):
        law = f"{name} trains all networks at once, by one recipe"
        raise BadInput(law, f"a choice of {open_[0]}", "--space", "leave the recipe out, or take another strategy")
    if name in MIXING:
        mixed_plan(*grounded(scratch))


def settled(mixture: Mixture) -> Iterator[Architecture]:
    """What the strengths of a mixture come down to, then draws of what they make likely."""
    settle, rng = mixture.relaxed.settle, np.random.default_rng([mixture.shared.seed, 24])
    yield settle(mixture.strength.strengths())
    while True:
        yield settle(mixture.strength.strengths(rng))


def different(drawn: Iterator[Architecture], count: int) -> list[Architecture]:
    """The first `count` architectures that are not the same; fewer where none is new for long."""
    found: dict[Architecture, None] = {}
    since = 0
    for architecture in drawn:
        since = 0 if architecture not in found else since + 1
        found[architecture] = None
        if len(found) == count or since == DRAWS:
            break
    return list(found)


@dataclass(frozen=True)
class Sharing:
    """The evaluator of a one-shot search: networks on the weights that were trained once, in `RUN/shared`."""

    scratch: Scratch
    run: str

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> dict[str, float]:
        """Judge one network without training it."""
        judge = _judge(self.scratch, self.run)
        ground, blueprint = judge.shared.ground, judge.shared.blueprint
        check_costs(self.scratch, ground, blueprint, proposal.architecture)
        timed = within_latency(self.scratch, ground, blueprint, proposal.architecture)
        return {**judge(proposal, rng), **timed}


@cache
def _judge(scratch: Scratch, run: str) -> WeightShared:
    """Read once a process."""
    elastic = read_json(Path(run) / "stages" / "shared.json")["result"]["elastic"]
    shared = shared_weights(scratch, 1.0, Elastic if elastic else Shared)
    shared.restore(torch.load(Path(run) / "shared" / "weights.pt", weights_only=True))
    return WeightShared(shared, calibration_of(shared.ground, recipe_of(shared.ground).batch))


def seconds_a_step(scratch: Scratch, method: Method, recipe: Recipe) -> float:
    """Of a method, timed over a few."""
    lesson = Lesson(partial(shared_weights, scratch), recipe)

    def train(steps: int) -> None:
        method(replace(lesson, recipe=replace(recipe, steps=steps)))

    return from_scratch.seconds_a_step(train, TRIED)


def shared_weights(scratch: Scratch, depth: float, kind: type[Shared] = Shared) -> Shared:
    """New weights of the networks of a space, of so much of their depth where the space is one that has a depth."""
    ground, blueprint = grounded(scratch)
    return kind(ground, shallower(scratch.space, blueprint, depth), scratch.seed)


def shallower(name: str, blueprint: Blueprint, depth: float) -> Blueprint:
    """The same space with networks of a share of the cells, or of as many more as it takes to have the same choices;
    itself where it has no number of cells."""
    cells = inspect.signature(SPACES[name]).parameters.get("cells") if name in SPACES else None
    if cells is None or depth == 1:
        return blueprint
    fewer = (SPACES[name](cells=count) for count in range(max(1, round(depth * cells.default)), cells.default))
    return next((each for each in fewer if set(each.space.choices) == set(blueprint.space.choices)), blueprint)


def share(
    run: RunDirectory, scratch: Scratch, method: Method, objectives: Sequence[str], trials: int, progress: Progress
) -> Strategy | None:
    """Train one set of weights for all networks of the space; `RUN/shared` keeps it. What begins with the networks that
    the method would try first, where it has settled on any."""

    def train(folder: Path) -> JSON:
        recipe = recipes(run.path, scratch)[0]
        tell = partial(progress.step, "shared weights", total=recipe.steps)
        learnt = method(Lesson(partial(shared_weights, scratch), recipe, run.path / "shared.checkpoint", tell))
        torch.save(learnt.shared.learnt(), folder / "weights.pt")
        first = [each.to_json() for each in different(learnt.first, trials)]
        fitted = learnt.fitted
        how = {
            "strengths ended at": learnt.ended,
            "closed": learnt.closed,
            "elastic": isinstance(learnt.shared, Elastic),
        }
        return {"steps": fitted.steps, "loss": fitted.loss, **how, "first": first}

    told = run.stage("shared", train)
    for left in run.path.glob("shared.*"):
        left.unlink()
    first = [Architecture.from_json(each) for each in told["first"]]
    if not first:
        return None
    return listed(first) if told["closed"] else regularised_evolution(objectives, budget=trials, start=first)
