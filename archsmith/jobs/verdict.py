"""What a budget says of something measured: which targets are met, and whether a runtime alone is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

from archsmith.jobs.case import Case
from archsmith.jobs.target import Target
from archsmith.report.result import Outcome, Result, Variant

COSTS = ("latency", "size", "memory", "parameters", "macs")
ALIKE = 0.2  # points (of a perplexity, percent) that precisions of one network differ by without one being better
NEAR = 1.03  # a latency this close to its bound is met: two measurements of one file differ by as much


def value_of(target: Target, variant: Variant, whole: Variant) -> float | None:
    """What a variant has of a target's metric, in the base unit; `whole` is the original that a drop is taken from."""
    if target.metric in ("drop", "quality"):
        if variant.quality is None or whole.quality is None:
            return None
        return whole.quality - variant.quality if target.metric == "drop" else variant.quality
    if target.metric == "perplexity":  # quality is 100 / perplexity
        if not variant.quality or not whole.quality:
            return None
        return (whole.quality if target.relative else 100.0) / variant.quality
    return {
        "latency": variant.latency_ms,
        "size": variant.bytes,
        "memory": variant.peak_bytes,
        "parameters": variant.parameters,
        "macs": variant.macs,
    }[target.metric]


def met(target: Target, value: float | None) -> bool:
    """Whether a measured value keeps a target; latency within the 3 % that a measurement repeats to."""
    if value is None:
        return False
    return target.met(value / NEAR if target.metric == "latency" else value)


def meets_all(case: Case, variant: Variant, whole: Variant) -> bool:
    """Whether a variant keeps every target."""
    return all(met(target, value_of(target, variant, whole)) for target in case.targets)


def free_win(case: Case, measured: Sequence[Variant]) -> Variant | None:
    """The original itself on a faster runtime or in lower precision, where a cost is bounded and that keeps it all."""
    if not any(target.metric in COSTS for target in case.targets):
        return None
    whole = whole_of(measured)
    able = [v for v in of_runtime(case, measured) if meets_all(case, v, whole)]
    return min(able, key=lambda v: (-(v.quality or 0.0), v.latency_ms or 0.0), default=None)


def uncut(case: Case, measured: Sequence[Variant], drop: float, bound: float | None) -> Variant | None:
    """The original's fastest file within every target, where a small network that is `drop` points below is not.

    `bound`: points below the original that are allowed; None where quality is not bounded.
    """
    if bound is None or drop <= bound or not case.targets:
        return None
    whole = whole_of(measured)
    able = [v for v in of_runtime(case, measured) if meets_all(case, v, whole)]
    return min(able, key=lambda v: v.latency_ms or float("inf"), default=None)


def of_runtime(case: Case, measured: Sequence[Variant]) -> list[Variant]:
    """The variants on the runtime that was asked for. PyTorch, measured beside it, is none."""
    wanted = case.request.runtime
    return [v for v in measured if wanted in ("all", v.runtime)]


def whole_of(measured: Sequence[Variant]) -> Variant:
    """The original in PyTorch fp32."""
    return next(v for v in measured if v.runtime == "pytorch" and v.precision == "fp32")


def fastest_meeting(case: Case, measured: Sequence[Variant], whole: Variant) -> Variant:
    """What ships: the fastest variant that keeps all targets; where only costs are bounded, the fastest of those that
    are as good as the best of these but for what precisions of one network differ by.

    Where none does: of those that keep most targets the one that misses the others by least.
    """
    measured = of_runtime(case, measured)
    misses = {v.name: [missed(target, value_of(target, v, whole)) for target in case.targets] for v in measured}
    fewest = min(sum(miss > 0 for miss in row) for row in misses.values())
    able = [v for v in measured if sum(miss > 0 for miss in misses[v.name]) == fewest]
    least = min(sum(misses[v.name]) for v in able)
    able = [v for v in able if sum(misses[v.name]) <= least + (NEAR - 1) * (1 + least)]
    if all(target.metric in COSTS for target in case.targets):
        best = max(v.quality or 0.0 for v in able)
        alike = best * ALIKE / 100 if case.task.metric == "perplexity" else ALIKE  # quality is 100 / perplexity
        able = [v for v in able if (v.quality or 0.0) >= best - alike]
    return min(able, key=lambda v: (v.latency_ms or math.inf, -(v.quality or 0.0)))


def missed(target: Target, value: float | None) -> float:
    """By how much a measured value misses a target: a share of a cost's bound, or points; 0 where it is met."""
    if met(target, value):
        return 0.0
    if value is None or math.isnan(value):
        return math.inf
    return target.missed_by(value) / (target.limit if target.metric in COSTS else 1.0)


def outcomes(case: Case, best: Variant, whole: Variant, floors: dict[str, float]) -> tuple[Outcome, ...]:
    """Each target with what was measured, in the user's unit."""
    found = []
    for target in case.targets:
        value = value_of(target, best, whole)
        floor = floors.get(target.metric)
        found.append(
            Outcome(
                target=str(target),
                value=None if value is None else target.in_unit(value),
                met=met(target, value),
                floor=None if floor is None else target.in_unit(floor),
            )
        )
    return tuple(found)


def unmet(result: Result) -> str:
    """One line that says which target was missed, by how much, and what the floor is; empty where all are met."""
    lines = []
    for outcome in result.targets:
        if not outcome.met:
            value = "not measured" if outcome.value is None else f"{outcome.value:.3g} was reached"
            floor = "" if outcome.floor is None else f", the floor is {outcome.floor:.3g}"
            lines.append(f"{outcome.target}: {value}{floor}")
    if not lines:
        return ""
    return f"a target could not be met; {'; '.join(lines)}. The best found is in {result.folder}; loosen the target."
