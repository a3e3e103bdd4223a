"""How the trials of a search from nothing are judged: an evaluator by its name, with options in the same word."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from archsmith.errors import BadInput
from archsmith.evaluate.curves import Extrapolated
from archsmith.evaluate.from_scratch import FromScratch
from archsmith.evaluate.untrained import REFERENCES, Reference, Untrained, check_scores, reference_of
from archsmith.jobs.ground import Scratch, grounded
from archsmith.report.terminal import Progress
from archsmith.space import JSON
from archsmith.study import RunDirectory
from archsmith.train.recipe import Recipe
from archsmith.trial import Evaluator

NAMES = ("trained", "curve", "zero-cost")
DEFAULT_SCORES = ("jacobian_covariance", "synflow")  # which together order best (benchmarks/proxies.py)
OPTIONS: dict[str, type] = {"share": float, "checks": int, "bound": float}
COSTS = ("parameters", "macs", "weight_bytes")


@dataclass(frozen=True)
class Judge:
    """An evaluator of declared networks, as plain data. `options`: of `curve`; `scores`: of `zero-cost`."""

    name: str = "trained"
    options: tuple[tuple[str, float], ...] = ()
    scores: tuple[str, ...] = ()

    @property
    def objective(self) -> str:
        """What is minimised where nothing else is asked for."""
        return "rank_points" if self.scores else "loss_points"

    @property
    def values(self) -> tuple[str, ...]:
        """What a trial measures."""
        more = {
            "trained": (),
            "curve": ("loss_points_spread", "loss_points_seen", "trained_share"),
            "zero-cost": tuple(f"minus_{name}" for name in self.scores),
        }[self.name]
        return (self.objective, *more, *COSTS)

    @property
    def share(self) -> float:
        """Of its steps that a trial trains."""
        if self.name == "curve":
            return float(dict(self.options).get("share", 0.5))
        return 0.0 if self.scores else 1.0

    def evaluator(self, maker: FromScratch, reference: Reference) -> Evaluator:
        """The evaluator itself. Raises `BadInput` for an option out of its range."""
        if self.name == "zero-cost":
            return Untrained(maker.ground, maker.blueprint, reference, maker.seed)
        return Extrapolated(maker, **dict(self.options)) if self.name == "curve" else maker  # type: ignore[arg-type]


def judge_of(word: str | None) -> Judge:
    """An evaluator as it is written in one word. Raises `BadInput`.

    >>> judge_of("curve:share=0.25,bound=20").options, judge_of("zero-cost:naswot+synflow").scores
    ((('share', 0.25), ('bound', 20.0)), ('naswot', 'synflow'))
    """
    name, _, rest = (word or "trained").partition(":")
    if name not in NAMES:
        law = "an evaluator of networks from nothing is one that is known"
        raise BadInput(law, repr(name), "--evaluator", f"there are: {', '.join(NAMES)}")
    if name == "zero-cost":
        return Judge(name, scores=tuple(dict.fromkeys(rest.split("+"))) if rest else DEFAULT_SCORES)
    given = [each.partition("=") for each in filter(None, rest.split(","))]
    known = list(OPTIONS) if name == "curve" else []
    options: dict[str, float] = {}
    for key, _, value in given:
        if key not in known:
            law = f"an option of {name} is one that it has"
            raise BadInput(law, repr(key), "--evaluator", f"there are: {', '.join(known) or 'none'}")
        try:
            number = json.loads(value)
        except ValueError:
            number = None
        whole = isinstance(number, int) and not isinstance(number, bool)
        if not whole and (OPTIONS[key] is int or not isinstance(number, float) or not math.isfinite(number)):
            kind = "a whole number" if OPTIONS[key] is int else "a number"
            raise BadInput(f"{key} is {kind}", repr(value), "--evaluator", "write it like curve:share=0.5,checks=10")
        options[key] = OPTIONS[key](number)
    return Judge(name, tuple(options.items()))


def check(word: str | None, scratch: Scratch, one_shot: str | None) -> Judge:
    """The judge of a search. Raises `BadInput` for one that is not known, or that a task or a strategy cannot have."""
    judge = judge_of(word)
    if word is not None and one_shot is not None:
        law = f"{one_shot} judges networks on weights of its own"
        raise BadInput(law, word, "--evaluator", "leave it out, or choose another --strategy")
    ground, blueprint = grounded(scratch)
    if judge.scores:
        check_scores(ground, judge.scores)
        recipe = getattr(blueprint, "recipe", {})
        if open_ := sorted(name for name, told in recipe.items() if str(told).startswith("$")):
            law = "scores of untrained networks say nothing of how they are trained"
            raise BadInput(law, f"a choice of {open_[0]}", "--space", "take it out, or take another --evaluator")
    judge.evaluator(FromScratch(ground, blueprint, Recipe(steps=1)), ())
    return judge


def reference(run: RunDirectory, scratch: Scratch, judge: Judge, progress: Progress) -> Reference:
    """What untrained networks are judged against; measured once, and kept in `RUN/stages/reference.json`."""
    if not judge.scores:
        return ()

    def measure(folder: Path) -> JSON:
        def tell(done: int) -> None:
            progress.step("reference", done, REFERENCES)

        ground, blueprint = grounded(scratch)
        return reference_of(ground, blueprint, judge.scores, scratch.seed, tell)

    found = run.stage("reference", measure)
    return tuple((name, tuple(found[name])) for name in judge.scores)
