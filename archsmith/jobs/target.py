"""One line of the user's budget: `latency<=5ms`, `size<=20MB`, `drop<=1.0`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsmith.errors import BadInput

COUNTS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
POINTS = {"": 1.0, "points": 1.0}

UNITS: Mapping[str, Mapping[str, float]] = {
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "size": BYTES,
    "memory": BYTES,
    "parameters": COUNTS,
    "macs": COUNTS,
    "drop": POINTS,
    "quality": POINTS,
    "perplexity": {"": 1.0, "x": 1.0},
}
"""Metric -> the units that it is written in -> what one of them is in the base unit (ms, bytes, a count, points).

Perplexity is given itself, or as a multiple (x) of the original's.
"""

FORM = re.compile(
    r"\s*(?P<metric>[a-z_]+)\s*(?P<sign>[<>=]+)\s*(?P<number>[-+]?[\d.]+(e[-+]?\d+)?)\s*(?P<unit>\S*)\s*",
    re.IGNORECASE,
)
EXAMPLE = "write it like latency<=5ms, size<=20MB, parameters<=10M, drop<=1.0 or perplexity<=1.2x"


@dataclass(frozen=True)
class Target:
    """A bound on one metric. `limit` is in the base unit: ms, bytes, a count, or points; `unit` is the user's own.

    >>> target = Target.parse("latency<=5ms")
    >>> target.limit, target.met(4.2), target.met(5.3)
    (5.0, True, False)
    >>> Target.parse("size<=20MB").in_unit(12_345_678)
    12.345678
    >>> print(target)
    latency<=5ms
    """

    metric: str
    limit: float
    unit: str
    text: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read one target. Raises `BadInput` on an unknown metric, sign or unit, and on an impossible limit."""
        form = FORM.fullmatch(text)
        if form is None:
            raise BadInput("a target is a metric, <= or >=, a number and a unit", repr(text), "--target", EXAMPLE)
        metric, sign = form["metric"].lower(), form["sign"]
        if metric not in UNITS:
            raise BadInput(f"a target's metric is one of {', '.join(UNITS)}", repr(metric), f"--target {text}", EXAMPLE)
        _check_sign(metric, sign, text)
        unit = _unit(metric, form["unit"], text)
        limit = _number(form["number"], text) * UNITS[metric][unit]
        _check_limit(metric, limit, text)
        return cls(metric, limit, unit, "".join(text.split()))

    @property
    def at_least(self) -> bool:
        """True where larger is better: only quality."""
        return self.metric == "quality"

    @property
    def relative(self) -> bool:
        """True where the limit is a multiple of what the original has."""
        return self.unit == "x"

    def met(self, value: float) -> bool:
        """Does a value in the base unit keep the bound? NaN never does."""
        return value >= self.limit if self.at_least else value <= self.limit

    def missed_by(self, value: float) -> float:
        """By how much a value misses the limit, in the base unit; 0 where it is met."""
        return max(0.0, self.limit - value if self.at_least else value - self.limit)

    def in_unit(self, value: float) -> float:
        """A value of the base unit, in the unit that the user wrote."""
        return value / UNITS[self.metric][self.unit]

    def __str__(self) -> str:
        return self.text


def check_targets(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The targets, if they can be one budget. Raises `BadInput` where a metric is bounded twice.

    >>> [str(t) for t in check_targets([Target.parse("drop <= 1"), Target.parse("latency<=4ms")])]
    ['drop<=1', 'latency<=4ms']
    """
    seen: dict[str, Target] = {}
    for target in targets:
        other = seen.setdefault(target.metric, target)
        if other is not target:
            raise BadInput("a budget bounds each metric once", f"{other} and {target}", "--target", "keep one of them")
    return tuple(targets)


def parse_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """Every `--target` of the command line, checked together."""
    return check_targets([Target.parse(text) for text in texts])


def _check_sign(metric: str, sign: str, text: str) -> None:
    wanted = ">=" if metric == "quality" else "<="
    if sign != wanted:
        law = f"{metric} is bounded from {'below' if wanted == '>=' else 'above'}, with {wanted}"
        raise BadInput(law, repr(sign), f"--target {text}", f"write {metric}{wanted}…")


def _unit(metric: str, written: str, text: str) -> str:
    by_folded = {unit.casefold(): unit for unit in UNITS[metric]}
    if written.casefold() in by_folded:
        return by_folded[written.casefold()]
    law = f"{metric} is given in {', '.join(unit or 'a plain number' for unit in UNITS[metric])}"
    raise BadInput(law, repr(written) if written else "no unit", f"--target {text}", EXAMPLE)


def _number(written: str, text: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise BadInput("a target's limit is a number", repr(written), f"--target {text}", EXAMPLE) from None


def _check_limit(metric: str, limit: float, text: str) -> None:
    reachable, law = 0 < limit < float("inf"), f"{metric} is above zero and finite"
    if metric in ("quality", "drop"):
        lowest = 0 if metric == "quality" else -100
        reachable, law = lowest <= limit <= 100, f"{metric} is in points from {lowest} to 100"
    if not reachable:
        raise BadInput(law, f"{limit:g}", f"--target {text}", "choose a limit that can be reached")
