"""How long networks from nothing are trained, and how: one dial, `minutes`.

Steps of a few networks of the space are timed at the start, and say how many each trial and the winner have.
`RUN/stages/pace.json` keeps it, and `length.json` the winner's by its own pace, so that every process goes by the same
plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from archsmith.build.plan import Part as Plan
from archsmith.errors import ArchsmithError
from archsmith.evaluate.from_scratch import FromScratch, Ground, quicker
from archsmith.evaluate.paper import paper_costs
from archsmith.jobs.ground import Scratch, grounded
from archsmith.model.pretrained import read_json
from archsmith.space import JSON, Architecture
from archsmith.study import RunDirectory
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal

SEARCHING, FINISHING = 0.65, 0.25  # shares of the minutes for all trials, and for the winner
LENGTH = "length"  # the stage that says how long the winner is trained
SHARED = 1.3  # of the searching time the weights' training leaves room for judging networks
PACED = 5  # networks that are timed
LONG = 60.0  # seconds of a winner's training that it is worth to time bf16 for
EPOCHS, LONGER = 3.0, 10  # of a trial where no minutes are given; the winner has so many times as many
LEAST = 0.05  # of the minutes trials have, whatever was before them
QUICK = 10  # times the usual steps that a trial has at most
SHIFT = 1 / 8  # of a picture's side
BLANKED, OFTEN = 1 / 4, 30  # of a picture's side that is blanked, where each is seen so many times
MIXED, MORE_OFTEN = 0.3, 100  # alpha of mixup, the same


@dataclass(frozen=True)
class Pacing:
    """How many steps a trial has in the seconds that it is given: what counts is what a network reaches in the time
    that there is, and a quick one sees more data in it. A step takes `base` seconds and `per_mac` for each
    multiply-accumulate of a row; both were fitted to a few networks, so that a network always has the same steps.

    >>> Pacing(10.0, 0.01, 1e-9).steps(90e6, 100), Pacing(10.0, 0.01, 1e-9).steps(0.0, 20)
    (100, 200)
    """

    seconds: float
    base: float
    per_mac: float

    def steps(self, macs: float, usual: int) -> int:
        """Of a network with so many multiply-accumulates; at most so many times the usual."""
        return int(np.clip(self.seconds / (self.base + self.per_mac * macs), 10, max(10, QUICK * usual)))


def recipe_of(ground: Ground) -> Recipe:
    """How networks of a task are trained, but for the steps: pictures are moved and flipped, batches fit the data."""
    rows = ground.task.size("train")
    batch = int(np.clip(2 ** round(np.log2(max(1, rows / 100))), 16, 128))
    pictures = len(ground.signal.shape) == 3
    shift = round(SHIFT * min(ground.signal.shape[1:])) if pictures else 0
    # Grey pictures are digits and letters as a rule, which mean something else in a mirror.
    smoothing = 0.05 if "classes" in ground.given else 0.0
    return Recipe(steps=1, batch=batch, smoothing=smoothing, shift=shift, flip=pictures and ground.signal.channels > 1)


def passed(ground: Ground, recipe: Recipe) -> int:
    """Steps of a pass over the data."""
    return max(1, ground.task.size("train") // recipe.batch)


@dataclass(frozen=True, eq=False)
class Timed:
    """A network that was drawn, what trains it, and the seconds of a step in fp32."""

    maker: FromScratch
    plan: Plan
    plain: float

    def seconds(self, bf16: bool) -> float:
        """Of a step."""
        return self.maker.step_seconds(self.plan, True) if bf16 else self.plain


def timed(scratch: Scratch, networks: int) -> list[Timed]:
    """Of so many networks drawn from the space those that can be trained. Raises `ArchsmithError` where none can."""
    ground, blueprint = grounded(scratch)
    rng, found, reason = np.random.default_rng([scratch.seed, 3]), list[Timed](), ""
    for architecture, plan in [ground.drawn(blueprint, rng) for _ in range(networks)]:
        maker = maker_of(scratch, architecture)
        try:
            found.append(Timed(maker, plan, maker.step_seconds(plan)))
        except Exception as error:  # as in a trial: that one fails says nothing of the others
            reason = str(error)
    if not found:
        raise ArchsmithError(f"of {networks} networks of the space none could be trained; the last: {reason}")
    return found


def maker_of(scratch: Scratch, architecture: Architecture) -> FromScratch:
    """What trains one network, by its own recipe where the space leaves it open."""
    ground, blueprint = grounded(scratch)
    maker = FromScratch(ground, blueprint, recipe_of(ground), scratch.seed)
    return replace(maker, recipe=maker.recipe_at(Proposal(architecture)))


def pace(
    run: RunDirectory,
    scratch: Scratch,
    trials: int,
    minutes: float | None,
    shared: Callable[[Recipe], float] | None = None,
    share: float = 1.0,
) -> None:
    """Plan the steps of a trial and of the winner: by the clock where minutes are given, else by passes; and whether
    they are taken in bf16, where it is quicker here. Where trials share weights, the steps are those of the weights;
    `shared`: seconds that one takes by a recipe. `share`: of a trial's steps that are gone; where trials are not
    trained, their time is the winner's."""

    def plan(folder: Path) -> JSON:
        if minutes is None:
            return by_passes(scratch, shared is not None)
        return by_clock(scratch, trials, minutes * 60, shared, share)

    run.stage("pace", plan)


def by_passes(scratch: Scratch, shared: bool) -> JSON:
    """Three over the data for a trial, and thirty for the winner."""
    ground, _ = grounded(scratch)
    steps = round(EPOCHS * passed(ground, recipe_of(ground)))
    try:
        (one,) = timed(scratch, 1)
    except ArchsmithError:
        autocast = False  # its trial says why, if it comes to one
    else:
        autocast = LONGER * steps * one.plain > LONG and quicker(lambda bf16: [one.seconds(bf16)])[0]
    return {
        "trial_steps": (LONGER if shared else 1) * steps,
        "winner_steps": LONGER * steps,
        "autocast": autocast,
        "pacing": None,
    }


def by_clock(
    scratch: Scratch, trials: int, seconds: float, shared: Callable[[Recipe], float] | None, share: float
) -> JSON:
    """As many steps as there is time for."""
    sample, recipe = timed(scratch, PACED), recipe_of(grounded(scratch)[0])
    autocast, each_took = quicker(lambda bf16: [one.seconds(bf16) for one in sample])
    took = np.array(each_took)
    macs = np.array([one.maker.recipe.batch / recipe.batch * paper_costs(one.plan)["macs"] for one in sample])
    most, step = macs.max() or 1.0, float(took.mean())
    base, per_mac = nnls(np.stack([np.ones(len(sample)), macs / most], axis=1), took)[0].tolist()
    searching = SEARCHING * seconds
    if shared:
        autocast, (a_step,) = quicker(lambda bf16: [shared(replace(recipe, autocast=bf16))])
        each = searching / a_step / SHARED
    else:
        each = searching / step / trials / share if share else 0
    winning = seconds * (FINISHING if share else SEARCHING + FINISHING)
    own = share and not shared  # trials are trained, each by itself
    return {
        "seconds_a_step": step,
        "autocast": autocast,
        "trial_steps": max(10, round(each)),
        "winner_steps": max(10, round(winning / step)),
        "seconds": seconds,
        "winner_seconds": winning,
        "pacing": [searching / trials / share, max(base, took.min() / 4), per_mac / most] if own else None,
    }


def left(minutes: float | None, spent: float) -> float | None:
    """Minutes for trials, where so many seconds are gone for what comes before them; always a few.

    >>> left(60.0, 120.0), left(60.0, 3000.0), left(None, 9.0)
    (37.0, 3.0, None)
    """
    return None if minutes is None else max(SEARCHING * minutes - spent / 60, LEAST * minutes)


def settle_length(run: RunDirectory, scratch: Scratch, winner: Architecture, spent: float) -> None:
    """How many steps the winner has: by its own pace, now that it is known, in the seconds that are left, or that were
    planned for it where those are more."""

    def measure(folder: Path) -> JSON:
        planned = read_json(run.path / "stages" / "pace.json")["result"]
        ground, blueprint = grounded(scratch)
        own, plan = maker_of(scratch, winner), ground.plan(blueprint, winner)
        if "winner_seconds" not in planned:
            autocast = planned["autocast"] and quicker(lambda bf16: [own.step_seconds(plan, bf16)])[0]
            steps = max(1, round(planned["winner_steps"] * recipe_of(ground).batch / own.recipe.batch))
            return {"steps": steps, "autocast": autocast, "batch": own.recipe.batch}
        autocast, (step,) = quicker(lambda bf16: [own.step_seconds(plan, bf16)])
        whole = planned["seconds"]
        seconds = max(FINISHING * whole, (SEARCHING + FINISHING) * whole - spent)
        return {
            "seconds": seconds,
            "steps": max(10, round(seconds / step)),
            "seconds_a_step": step,
            "autocast": autocast,
            "batch": own.recipe.batch,
        }

    run.stage(LENGTH, measure)


def pacing_of(out: Path) -> Pacing | None:
    """How trials are paced, as it was planned; None where each has the same steps."""
    told = read_json(out / "stages" / "pace.json")["result"]["pacing"]
    return Pacing(*told) if told else None


def recipes(out: Path, scratch: Scratch) -> tuple[Recipe, Recipe]:
    """That of a trial and that of the winner, as they were planned."""
    planned, settled = read_json(out / "stages" / "pace.json")["result"], out / "stages" / f"{LENGTH}.json"
    length = read_json(settled)["result"] if settled.exists() else {"steps": planned["winner_steps"]}
    ground = grounded(scratch)[0]
    trial = replace(recipe_of(ground), steps=int(planned["trial_steps"]), autocast=planned["autocast"])
    return trial, in_full(ground, int(length["steps"]), length.get("autocast", False), length.get("batch"))


def in_full(ground: Ground, steps: int, autocast: bool, batch: int | None = None) -> Recipe:
    """How a network is trained for all the steps that it has: where each picture is seen often, a square of it is blank
    each time, and where it is seen more often yet, it is mixed with another."""
    recipe = replace(recipe_of(ground), steps=steps, autocast=autocast)
    recipe = replace(recipe, batch=batch or recipe.batch)
    if len(ground.signal.shape) != 3:
        return recipe
    often, more = (steps >= times * passed(ground, recipe) for times in (OFTEN, MORE_OFTEN))
    blank = round(BLANKED * min(ground.signal.shape[1:]))
    return replace(recipe, cutout=blank if often else 0, mixup=MIXED if more else 0.0)
