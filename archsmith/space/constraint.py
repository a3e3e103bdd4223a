"""What a point of a space must satisfy beyond its choices, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from archsmith.errors import BadInput
from archsmith.space.choice import JSON, Value, as_value, same


@dataclass(frozen=True)
class Linear:
    """The sum of weight × value over the active choices named must not exceed the limit; True counts 1.

    >>> Linear({"heads": 2.0, "ffn": 0.5}, limit=10).violated({"heads": 4, "ffn": 8})
    'the sum of weights is 12, over 10'
    """

    weights: Mapping[str, float]
    limit: float

    def __post_init__(self) -> None:
        if not all(map(_is_finite, (self.limit, *self.weights.values()))):
            found = ", ".join(f"{name}: {_shown(weight)}" for name, weight in self.weights.items())
            law = "weights and limit of a linear constraint must be finite"
            raise BadInput(law, f"{found}; limit {_shown(self.limit)}")
        object.__setattr__(self, "weights", {name: float(weight) for name, weight in self.weights.items()})
        object.__setattr__(self, "limit", float(self.limit))

    def violated(self, values: Mapping[str, Value]) -> str | None:
        """None where it holds, else the reason why not."""
        total = math.fsum(self.part(name, values[name]) for name in self.weights if name in values)
        return None if total <= self.limit + self.slack else f"the sum of weights is {total:g}, over {self.limit:g}"

    def part(self, name: str, value: Value) -> float:
        """What one choice adds to the sum; 0 for a choice that has no weight."""
        weight = self.weights.get(name)
        if weight is None:
            return 0.0
        if isinstance(value, str):
            raise BadInput("a choice under a linear constraint must have numbers as values", repr(value), name)
        if not _is_finite(value) or not math.isfinite(weight * value):
            law = "a weight times a value under a linear constraint must be finite"
            raise BadInput(law, f"{weight:g} times {_shown(value)}", name)
        return weight * value

    @property
    def slack(self) -> float:
        """Rounding allowed: 0.1 + 0.2 must be able to meet a limit of 0.3."""
        return 1e-9 * max(1.0, abs(self.limit))

    def to_json(self) -> JSON:
        """A JSON object."""
        return {"kind": "linear", "weights": dict(self.weights), "limit": self.limit}


def _is_finite(number: float) -> bool:
    """Also of an integer: whether a float can hold it."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _shown(number: float) -> str:
    """An integer of hundreds of digits by their count."""
    text = str(number)
    return text if len(text) < 40 else f"a number of {len(text)} digits"


@dataclass(frozen=True)
class Forbidden:
    """The choices named must not all have these values at once.

    >>> Forbidden({"norm": "none", "depth": 12}).violated({"norm": "none", "depth": 12})
    "{'norm': 'none', 'depth': 12} is forbidden"
    """

    values: Mapping[str, Value]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {name: as_value(value, name) for name, value in self.values.items()})

    def violated(self, values: Mapping[str, Value]) -> str | None:
        """None where it holds, else the reason why not."""
        hit = all(name in values and same(values[name], value) for name, value in self.values.items())
        return f"{dict(self.values)} is forbidden" if hit else None

    def to_json(self) -> JSON:
        """A JSON object."""
        return {"kind": "forbidden", "values": dict(self.values)}


Constraint: TypeAlias = Linear | Forbidden


def constraint_from_json(data: JSON) -> Constraint:
    """The inverse of `to_json`; raises `BadInput` for a kind that is not known."""
    if data["kind"] == "linear":
        return Linear(data["weights"], data["limit"])
    if data["kind"] == "forbidden":
        return Forbidden(data["values"])
    raise BadInput("a constraint must be linear or forbidden", repr(data["kind"]))
