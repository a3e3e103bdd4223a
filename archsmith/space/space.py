"""The space of what may be chosen: choices, conditions, constraints, and how to move about in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from types import MappingProxyType

import numpy as np

from archsmith.errors import BadInput
from archsmith.space.choice import JSON, Architecture, Choice, Condition, Value, digest
from archsmith.space.constraint import Constraint, constraint_from_json
from archsmith.space.walk import Indices, prepare, walk

# Decisions after which a walk that finds nothing starts again in another order, or gives up.
PATIENCE = 5_000


class Space:
    """An ordered mapping of names to choices, plus constraints; immutable.

    Whatever it returns is a valid point: active choices only, conditions and constraints met. Raises `BadInput` for
    a condition or constraint that speaks of what does not exist, and for one that no point can meet.

    >>> space = Space({"attention": Choice([True, False]),
    ...                "heads": Choice([4, 8], when=Condition("attention", [True]))})
    >>> space.size, Architecture({"attention": False}) in space
    (3, True)
    """

    def __init__(self, choices: Mapping[str, Choice], constraints: Sequence[Constraint] = ()) -> None:
        self._choices = dict(choices)
        self.constraints = tuple(constraints)
        self._plan = prepare(self._choices, self.constraints)

    @property
    def choices(self) -> Mapping[str, Choice]:
        """Name -> choice, in the order given."""
        return MappingProxyType(self._choices)

    @property
    def order(self) -> tuple[str, ...]:
        """The names in the order given, but for children of a condition, which come after their parent."""
        return self._plan.order

    # What is in it

    def check(self, architecture: Mapping[str, Value]) -> None:
        """Raise `BadInput` naming the first choice or constraint that the architecture does not respect."""
        indices = self._indices(architecture)
        for name in self._plan.order:
            if self._plan.is_active(name, indices) and name not in indices:
                raise BadInput("an architecture must give every active choice a value", "none", name)
            if name in indices and not self._plan.is_active(name, indices):
                when = self._choices[name].when
                raise BadInput("an architecture must not give an inactive choice a value", f"{name}, active {when}")
        for constraint in self.constraints:
            reason = constraint.violated(architecture)
            if reason:
                raise BadInput("an architecture must meet the constraints of its space", reason)

    def __contains__(self, architecture: object) -> bool:
        try:
            self.check(architecture if isinstance(architecture, Mapping) else {"": str(architecture)})
        except BadInput:
            return False
        return True

    @cached_property
    def size(self) -> int:
        """The exact number of points, conditions honoured, constraints ignored."""
        count: dict[str, int] = {}
        for name in reversed(self._plan.order):
            count[name] = sum(
                math.prod(count[child] for child in self._plan.children[name] if index in self._plan.active[child][1])
                for index in range(len(self._choices[name].values))
            )
        return math.prod(count[name] for name in self._choices if name not in self._plan.active)

    def points(self, rng: np.random.Generator | None = None) -> Iterator[Architecture]:
        """Every valid point once: in order of the choices and their values, or in an order drawn from `rng`.

        The drawn order is not uniform: points that share their first choices come together. On a space whose
        constraints all but exclude each other the walk may end early.
        """
        order = self._plan.order if rng is None else self._shuffled(rng)
        candidates = self._in_order if rng is None else self._permuted(rng)
        return (self._architecture(found) for found in walk(self._plan, order, candidates, 100 * PATIENCE))

    # Moving about

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random point: each active choice takes each of its values with equal chance.

        So under a condition the points are not all equally likely: a branch that hides 1,000 points is
        skipped half of the time. Under constraints such a draw is repeated until it is valid; where that takes too
        long the choices are decided in random order with values that can still be completed. Raises `BadInput` where
        no point was found.
        """

        def one(name: str) -> Sequence[int]:
            return (int(rng.integers(len(self._choices[name].values))),)

        for _ in range(16):
            found = next(walk(self._plan, self._plan.order, one, PATIENCE), None)
            if found is not None:
                return self._architecture(found)
        for _ in range(20):
            found = next(walk(self._plan, self._shuffled(rng), self._permuted(rng), PATIENCE), None)
            if found is not None:
                return self._architecture(found)
        raise BadInput("a space must have a point that meets its constraints", "none in 100,000 decisions")

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Every valid point with one active choice of `architecture` changed; choices that this makes active take
        the first values that meet the constraints."""
        indices = self._indices(architecture)
        for name, index in indices.items():
            for other in range(len(self._choices[name].values)):
                if other != index:
                    found = self._changed(indices, name, other, self._in_order)
                    if found is not None:
                        yield found

    def mutate(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """One active choice changed at random; choices that this makes active are drawn.

        Where no single change is valid, a random point; `architecture` itself only where there is no other.
        """
        indices = self._indices(architecture)
        names = [name for name in indices if len(self._choices[name].values) > 1]
        for position in rng.permutation(len(names)):
            name = names[position]
            for other in rng.permutation(len(self._choices[name].values)).tolist():
                if other != indices[name]:
                    found = self._changed(indices, name, other, self._permuted(rng))
                    if found is not None:
                        return found
        return self.sample(rng)

    def crossover(self, a: Architecture, b: Architecture, rng: np.random.Generator) -> Architecture:
        """Each active choice from one parent, by a fair coin; other values only where constraints force them."""
        of_a, of_b = self._indices(a), self._indices(b)

        def candidates(name: str) -> list[int]:
            mixed = [parent[name] for parent in (of_a, of_b) if name in parent]
            if len(mixed) == 2 and rng.random() < 0.5:
                mixed.reverse()
            rest = rng.permutation(len(self._choices[name].values)).tolist() if self.constraints else ()
            return list(dict.fromkeys(chain(mixed, rest)))

        found = next(walk(self._plan, self._plan.order, candidates, PATIENCE), None)
        return self.mutate(a, rng) if found is None else self._architecture(found)

    # Vectors

    @cached_property
    def width(self) -> int:
        """Length of an encoded vector."""
        return sum(self._coordinates(choice) for choice in self._choices.values())

    @cached_property
    def _layout(self) -> tuple[np.ndarray, Mapping[str, int]]:
        """The vector of no active choice (width,), and where each choice begins in it."""
        widths = [self._coordinates(choice) for choice in self._choices.values()]
        parts = [np.full(w, -1.0 if c.ordinal else 0.0) for w, c in zip(widths, self._choices.values(), strict=True)]
        starts = dict(zip(self._choices, np.cumsum([0, *widths]).tolist(), strict=False))
        return np.concatenate([np.empty(0), *parts]), starts

    def encode(self, architecture: Mapping[str, Value]) -> np.ndarray:
        """(width,) float64: a choice of numbers is one coordinate, its value's rank scaled to [0, 1], -1 where
        inactive; a choice with strings is one coordinate a value, 1 at its value, all 0 where inactive."""
        nothing, starts = self._layout
        vector = nothing.copy()
        for name, index in self._indices(architecture).items():
            choice = self._choices[name]
            if choice.ordinal:
                vector[starts[name]] = index / max(len(choice.values) - 1, 1)
            else:
                vector[starts[name] + index] = 1.0
        return vector

    def decode(self, vector: np.ndarray) -> Architecture:
        """The valid point whose choices, parents first, lie nearest to any real vector (width,).

        The inverse of `encode`. Raises `BadInput` for another shape, or where constraints leave no point.
        """
        if np.shape(vector) != (self.width,):
            raise BadInput(f"an encoded architecture must have shape ({self.width},)", str(np.shape(vector)))
        far: dict[str, np.ndarray] = {}
        start = 0
        for name, choice in self._choices.items():
            part = np.asarray(vector[start : start + self._coordinates(choice)], dtype=float)
            start += len(part)
            ranks = np.arange(len(choice.values)) / max(len(choice.values) - 1, 1)
            far[name] = np.abs(ranks - part[0]) if choice.ordinal else -part

        def candidates(name: str) -> list[int]:
            nearest: list[int] = np.argsort(far[name], kind="stable").tolist()
            return nearest

        found = next(walk(self._plan, self._plan.order, candidates, 20 * PATIENCE), None)
        if found is None:
            raise BadInput("a space must have a point that meets its constraints", "none near the vector")
        return self._architecture(found)

    # JSON

    def to_json(self) -> JSON:
        """Choices as a list, for their order is part of the space."""
        choices = []
        for name, choice in self._choices.items():
            entry: dict[str, JSON] = {"name": name, "values": list(choice.values)}
            if choice.when:
                entry["when"] = {"name": choice.when.name, "values": list(choice.when.values)}
            choices.append(entry)
        return {"choices": choices, "constraints": [each.to_json() for each in self.constraints]}

    @classmethod
    def from_json(cls, data: JSON) -> Space:
        """The inverse of `to_json`."""
        try:
            names = [entry["name"] for entry in data["choices"]]
            wrong = [name for name in names if not isinstance(name, str) or names.count(name) > 1]
            if wrong:
                raise BadInput("the choices of a space have names of their own", repr(wrong[0]))
            if loose := [entry["name"] for entry in data["choices"] if not isinstance(entry["values"], list)]:
                raise BadInput("the values of a choice are a list", "none", loose[0])
            known = {"choices", "constraints"}, {"name", "values", "when"}
            for at, entry in [("", data), *((each["name"], each) for each in data["choices"])]:
                if others := set(entry) - known[bool(at)]:
                    law, remedy = (
                        "a space says nothing that is not known",
                        f"there are: {', '.join(sorted(known[bool(at)]))}",
                    )
                    raise BadInput(law, repr(min(others)), at, remedy)
            choices = {entry["name"]: _choice_from_json(entry) for entry in data["choices"]}
            return cls(choices, [constraint_from_json(each) for each in data["constraints"]])
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput("a space must be written as Space.to_json writes it", str(error)) from error

    @cached_property
    def hash(self) -> str:
        """A stable hexadecimal digest of names, values, conditions and constraints, in their order."""
        return digest(self.to_json())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.hash == other.hash

    def __hash__(self) -> int:
        return int(self.hash, 16)

    def __repr__(self) -> str:
        size = f"{self.size}" if self.size < 10**6 else f"about 10^{math.log10(self.size):.1f}"
        return f"Space({len(self._choices)} choices, {len(self.constraints)} constraints, {size} points)"

    # Candidates of a walk

    def _in_order(self, name: str) -> Sequence[int]:
        return range(len(self._choices[name].values))

    def _permuted(self, rng: np.random.Generator) -> Callable[[str], Sequence[int]]:
        return lambda name: rng.permutation(len(self._choices[name].values)).tolist()

    def _shuffled(self, rng: np.random.Generator) -> tuple[str, ...]:
        """A random order with parents first, so that no choice always gets what a limit has left."""
        depth: dict[str, int] = {}
        for name in self._plan.order:
            depth[name] = 1 + depth[self._plan.active[name][0]] if name in self._plan.active else 0
        names = [self._plan.order[i] for i in rng.permutation(len(self._plan.order))]
        return tuple(sorted(names, key=depth.__getitem__))

    def _changed(
        self, indices: Indices, name: str, index: int, rest: Callable[[str], Sequence[int]]
    ) -> Architecture | None:
        """`indices` with one changed; `rest` gives candidates for the choices that become active."""
        if not self._plan.active and not self.constraints:  # nothing hangs on it: no walk is needed
            return self._architecture({**indices, name: index})

        def candidates(each: str) -> Sequence[int]:
            if each == name:
                return (index,)
            return (indices[each],) if each in indices else rest(each)

        found = next(walk(self._plan, self._plan.order, candidates, PATIENCE), None)
        return None if found is None else self._architecture(found)

    def _architecture(self, indices: Indices) -> Architecture:
        return Architecture({n: c.values[indices[n]] for n, c in self._choices.items() if n in indices})

    def _indices(self, architecture: Mapping[str, Value]) -> Indices:
        indices: Indices = {}
        for name, value in architecture.items():
            if name not in self._choices:
                raise BadInput("an architecture must name choices of its space", repr(name))
            index = self._choices[name].index(value)
            if index is None:
                listed = f"{value!r}, not one of {list(self._choices[name].values)}"
                raise BadInput("an architecture must give a choice one of its values", listed, name)
            indices[name] = index
        return indices

    @staticmethod
    def _coordinates(choice: Choice) -> int:
        return 1 if choice.ordinal else len(choice.values)


def _choice_from_json(entry: Mapping[str, JSON]) -> Choice:
    try:
        return Choice(entry["values"], Condition(**entry["when"]) if "when" in entry else None)
    except BadInput as error:
        raise error.within(entry["name"]) from error
