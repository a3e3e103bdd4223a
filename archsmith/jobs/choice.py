"""What is trained for long: the trial to begin with, what comes after it, and which of the two ships."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from archsmith.evaluate.trained import Teacher
from archsmith.jobs.case import Case
from archsmith.jobs.plan import Plan
from archsmith.jobs.select import Point
from archsmith.space import Architecture
from archsmith.trial import Trial

DROP = 1.0  # points below the original that are allowed where no bound is given
FIRST = 0.62  # of the seconds of training where quality is bounded: the first choice's share
# What is lost shrinks about as (time trained) ** -gain: on SST-2 by 0.65 to 0.93 in 14 to 22 times as long, which is a
# gain of 0.12; a ResNet-56 at a third of its MACs has one of 0.4. How sure one is of it before a trial, and its bounds.
GAIN, UNSURE, GAINS = 0.12, 0.15, (0.0, 0.6)
PROBE = {"seconds": 0.25}  # of a trial's seconds, at which the first point is tried besides
AIM = 0.75  # share of the bound that is aimed at after it was missed, for the last training must keep it
SLOPE, SLOPES = -1.5, (-4.0, -0.7)  # what is lost goes about as ms ** SLOPE along a front; fitted within these
LEAST = 0.05  # points; less is noise
AGAIN = 0.8  # share of what a training gave beyond the original that the next one is trusted to give
NEARER, FARTHER, WHOLE = 0.95, 0.6, 0.85  # shares of ms: worth a training; a step to be dared; all but the original


@dataclass(frozen=True, eq=False)
class Chosen:
    """An architecture that may ship, its trained module, and how many points it is below the original: in PyTorch's
    fp32 (`drop`), and in the runtime and precision that the search is led by (`served_drop`)."""

    architecture: Architecture
    module: nn.Module
    drop: float
    served_drop: float
    predicted_ms: float

    @property
    def least_drop(self) -> float:
        """In the better of the two, since both are files that can ship."""
        return min(self.drop, self.served_drop)


def bound_of(case: Case, teacher: Teacher) -> float | None:
    """Points below the original that are allowed; None where a latency, or only other costs, are bounded."""
    kinds = {target.metric: target for target in case.targets}
    if "latency" in kinds or (kinds and not kinds.keys() & {"drop", "quality", "perplexity"}):
        return None
    judged = teacher.judged
    whole = 100.0 if judged is None else teacher.task.quality(judged)
    bounds = [kinds["drop"].limit] if "drop" in kinds else []
    if "quality" in kinds:
        bounds.append(whole - kinds["quality"].limit)
    if "perplexity" in kinds:
        target = kinds["perplexity"]
        bounds.append(whole - (whole if target.relative else 100.0) / target.limit)
    return min(bounds, default=DROP)


def gain_of(trials: Sequence[Trial], rows: int) -> float:
    """The exponent of time that what is lost falls with, learnt from the point that was tried at `PROBE` and in full.

    The two trials count for as much as they are sure: d points lost of `rows` rows are d / 100 x rows mistakes, whose
    logarithm has a variance of one over their number. With no such pair it is `GAIN`.
    """
    done = [trial for trial in trials if trial.status == "complete"]
    short = {t.proposal.architecture: t.values["drop_points"] for t in done if t.proposal.fidelity}
    pairs = [
        (max(short[t.proposal.architecture], LEAST), max(t.values["drop_points"], LEAST))
        for t in done
        if not t.proposal.fidelity and t.proposal.architecture in short
    ]
    little, whole = pairs[0] if pairs else (LEAST, LEAST)
    if max(little, whole) <= LEAST:  # two trials that have lost next to nothing say nothing
        return GAIN
    times = -math.log(PROBE["seconds"])
    seen, variance = math.log(little / whole) / times, (1 / little + 1 / whole) * 100 / rows / times**2
    weight = UNSURE**2 / (UNSURE**2 + variance)
    return float(np.clip(weight * seen + (1 - weight) * GAIN, *GAINS))


def shrink_of(plan: Plan, gain: float) -> float:
    """The share of what a trial loses that should remain after long training."""
    if not plan.trains:
        return 1.0
    return float((plan.trial_seconds / max(FIRST * plan.final_seconds, plan.trial_seconds)) ** gain)


def best_trial(case: Case, trials: Sequence[Trial], bound: float | None, shrink: float) -> Trial:
    """The trial to go on with; `shrink`: the share of what a trial loses that should remain after long training.

    With a bound on latency, the best within it; without one on quality, the best; else the fastest whose loss should
    keep it, or the best if none should.
    """
    latency = case.limit("latency")
    if latency is not None:
        within = [t for t in trials if t.values["latency_ms"] <= latency] or [
            min(trials, key=lambda t: t.values["latency_ms"])
        ]
        return min(within, key=lambda t: t.values["loss_points"])
    able = [t for t in trials if bound is not None and t.values["drop_points"] * shrink <= bound]
    if not able:
        return min(trials, key=lambda t: t.values["loss_points"])
    return min(able, key=lambda t: t.values["latency_ms"])


def next_point(
    front: Sequence[Point],
    trials: Sequence[Trial],
    ms: float,
    drop: float,
    bound: float,
    whole_ms: float,
    gain: float = GAIN,
) -> Point | None:
    """What to spend the rest on after an architecture of `ms` was trained for the share `FIRST` and is `drop` points
    below the original: the point of a front that should just keep the bound. None where nothing is worth it.

    How what is lost falls along the front is fitted to the trials, and goes through what was reached. A point that
    follows a miss is slower and is to keep the bound with some room, since nothing comes after it. `whole_ms`: of the
    original, in the same setting.
    """
    missed = drop > bound
    rest = (FIRST / (1 - FIRST)) ** gain
    aim = max(bound * AIM if missed else bound, LEAST)
    goal = ms * (max(drop, LEAST) * rest / aim) ** (-1 / slope_of(trials))
    if drop < 0:
        goal = beyond(trials, ms, drop, bound)
    if missed:
        able = [point for point in front if ms <= NEARER * point.ms and point.ms <= WHOLE * whole_ms]
    else:
        goal = max(goal, FARTHER * ms)
        able = [point for point in front if point.ms <= NEARER * ms] if goal <= NEARER * ms else []
    return min(able, key=lambda point: abs(np.log(point.ms) - np.log(goal)), default=None)


def beyond(trials: Sequence[Trial], ms: float, drop: float, bound: float) -> float:
    """The milliseconds at which a bound should just be kept where training made an architecture better than the
    original, as text of one kind does to a language model of all kinds: it multiplies quality by about as much along
    the front, of which the trials show what it was before.
    """
    done = sorted((t for t in trials if t.status == "complete"), key=lambda t: t.values["latency_ms"])
    along = np.log([trial.values["latency_ms"] for trial in done])
    whole = 100 - done[0].values["loss_points"] + done[0].values["drop_points"]
    left = np.maximum.accumulate([max(whole - trial.values["drop_points"], LEAST) for trial in done])
    kept = np.log(left)
    gave = np.log(whole - drop) - float(np.interp(np.log(ms), along, kept))
    wanted = np.log(max(whole - bound, LEAST)) - AGAIN * gave
    return float(np.exp(np.interp(wanted, kept, along)))


def slope_of(trials: Sequence[Trial]) -> float:
    """The exponent of milliseconds that what is lost goes with along the front, by least squares in logarithms."""
    done = [trial for trial in trials if trial.status == "complete"]
    ms = np.log([trial.values["latency_ms"] for trial in done])
    lost = np.log([max(trial.values["drop_points"], LEAST) for trial in done])
    if len(done) < 2 or np.ptp(ms) < 0.01:
        return SLOPE
    return float(np.clip(np.polyfit(ms, lost, 1)[0], *SLOPES))


def better(first: Chosen, second: Chosen, bound: float, slower: float) -> Chosen:
    """Of two trained architectures the faster that keeps the bound, else the one that loses less.

    What keeps it in fp32 only takes `slower` times as long as predicted.
    """

    def ms(chosen: Chosen) -> float:
        kept = chosen.predicted_ms if chosen.served_drop <= bound else chosen.predicted_ms * slower
        return kept if chosen.least_drop <= bound else math.inf

    return min((first, second), key=lambda chosen: (ms(chosen), chosen.least_drop))
