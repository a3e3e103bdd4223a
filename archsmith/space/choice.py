"""One decision, the condition under which it is made, and a point of a space. Plain data."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from archsmith.errors import BadInput

Value: TypeAlias = bool | int | float | str
# Whatever json.dumps takes; Any because a recursive type would make every reader narrow it step by step.
JSON: TypeAlias = Any


def as_value(value: object, place: str) -> Value:
    """A plain Python value; NumPy scalars are unpacked, everything that JSON cannot hold exactly is refused."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, (bool, int, str)) or (isinstance(plain, float) and math.isfinite(plain)):
        return plain
    raise BadInput("a value must be a bool, an int, a finite float or a string", repr(value), place)


def same(a: Value, b: Value) -> bool:
    """Equality that tells True from 1 and 1 from 1.0, as JSON does.

    >>> same(True, 1), same(2, 2)
    (False, True)
    """
    return type(a) is type(b) and a == b


def digest(data: JSON) -> str:
    """Sixteen hexadecimal digits of the canonical JSON text: the same in every process, on every machine.

    >>> digest({"b": 1, "a": True}) == digest({"a": True, "b": 1})
    True
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Condition:
    """A choice is made only where the choice `name` is itself active and has one of `values`."""

    name: str
    values: tuple[Value, ...]

    def __init__(self, name: str, values: Sequence[Value]) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "values", tuple(as_value(value, f"the condition on {name}") for value in values))

    def holds(self, value: Value) -> bool:
        """Whether the named choice's value makes the condition true."""
        return any(same(value, each) for each in self.values)


@dataclass(frozen=True)
class Choice:
    """One decision with a finite ordered list of values; active only under its condition, if it has one.

    >>> Choice([1, 2, 4], when=Condition("attention", [True])).values
    (1, 2, 4)
    """

    values: tuple[Value, ...]
    when: Condition | None = None

    def __init__(self, values: Sequence[Value], when: Condition | None = None) -> None:
        plain = tuple(as_value(value, "a choice") for value in values)
        if not plain:
            raise BadInput("a choice must have at least one value", "none", "", "remove the choice")
        if len({(type(value), value) for value in plain}) < len(plain):
            raise BadInput("the values of a choice must differ", repr(list(plain)), "", "name each once")
        object.__setattr__(self, "values", plain)
        object.__setattr__(self, "when", when)

    def index(self, value: object) -> int | None:
        """Position of a value in the list, None where it is not one of them."""
        return self._places.get((type(value), value)) if isinstance(value, Value) else None

    @cached_property
    def _places(self) -> Mapping[tuple[type, object], int]:
        return {(type(value), value): position for position, value in enumerate(self.values)}

    @cached_property
    def ordinal(self) -> bool:
        """Whether all values are numbers, so that near positions mean near values."""
        return not any(isinstance(value, str) for value in self.values)


class Architecture(Mapping[str, Value]):
    """A point of a space: a frozen mapping of the active choices' names to values.

    Equal where names and values are equal, whatever their order; True and 1 differ, as they do in JSON.

    >>> a = Architecture({"heads": 4, "ffn": 512})
    >>> a["heads"], a == Architecture({"ffn": 512, "heads": 4}), a.hash
    (4, True, '0175e77af9f75049')
    """

    __slots__ = ("_hash", "_key", "_values")

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = {name: as_value(value, name) for name, value in values.items()}
        self._hash = digest(self._values)
        self._key = int(self._hash, 16)

    @property
    def hash(self) -> str:
        """A stable hexadecimal digest of names and values, 16 digits."""
        return self._hash

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self._hash == other._hash

    def __repr__(self) -> str:
        return f"Architecture({self._values})"

    def to_json(self) -> JSON:
        """Name -> value."""
        return dict(self._values)

    @classmethod
    def from_json(cls, data: JSON) -> Architecture:
        """The inverse of `to_json`; raises `BadInput` for anything but an object of plain values."""
        if not isinstance(data, Mapping):
            raise BadInput("an architecture must be an object of names and values", type(data).__name__)
        return cls(data)
