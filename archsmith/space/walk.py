"""Deciding the choices of a space one after another, parents first, turning back where a constraint cannot be met.

Everything a space does (sample, mutate, cross, decode, enumerate) is this one walk with different candidates. Values
are handled by their index in the choice's list. A `Linear` constraint is looked ahead exactly: the walk knows the least
sum that the undecided choices can still add, so one such constraint never leads it into a dead end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from archsmith.errors import BadInput
from archsmith.space.choice import Choice
from archsmith.space.constraint import Constraint, Forbidden, Linear

Indices = dict[str, int]


@dataclass(frozen=True, eq=False)
class Plan:
    """A space prepared for walking: `order` has parents before children, `active` the parent and its indices.

    `rise[name][index]` is what deciding so adds to the least reachable sum of each linear constraint, `floor` the
    least sums of all; `forbidden` the combinations of indices by the names in them.
    """

    order: tuple[str, ...]
    active: Mapping[str, tuple[str, frozenset[int]]]
    children: Mapping[str, Sequence[str]]
    floor: tuple[float, ...]
    limit: tuple[float, ...]
    rise: Mapping[str, Sequence[tuple[float, ...]]]
    forbidden: Mapping[str, Sequence[Indices]]

    def is_active(self, name: str, chosen: Mapping[str, int]) -> bool:
        """Whether a choice is to be made, given the choices before it."""
        if name not in self.active:
            return True
        parent, indices = self.active[name]
        return chosen.get(parent, -1) in indices


def prepare(choices: Mapping[str, Choice], constraints: Sequence[Constraint]) -> Plan:
    """Check that conditions and constraints speak of what exists, and precompute what the walk needs."""
    active = {name: _condition(name, choices) for name, choice in choices.items() if choice.when}
    order = _parents_first(choices, {name: parent for name, (parent, _) in active.items()})
    children: dict[str, list[str]] = {name: [] for name in choices}
    for name, (parent, _) in active.items():
        children[parent].append(name)
    linear = [each for each in constraints if isinstance(each, Linear)]
    for constraint in constraints:
        named = constraint.weights if isinstance(constraint, Linear) else constraint.values
        for name in named:
            if name not in choices:
                raise BadInput("a constraint must name choices of the space", repr(name))
    for constraint in linear:
        most = [max(abs(constraint.part(name, value)) for value in choices[name].values) for name in constraint.weights]
        if not math.isfinite(sum(most)):
            raise BadInput("the sum of a linear constraint must be finite", "one beyond every float")
    least: dict[str, tuple[float, ...]] = {}
    rise: dict[str, list[tuple[float, ...]]] = {}
    for name in reversed(order):
        totals = []
        for index, value in enumerate(choices[name].values):
            under = [least[child] for child in children[name] if index in active[child][1]]
            totals.append(tuple(c.part(name, value) + sum(u[i] for u in under) for i, c in enumerate(linear)))
        least[name] = tuple(min(column) for column in zip(*totals, strict=True))
        rise[name] = [tuple(t - m for t, m in zip(total, least[name], strict=True)) for total in totals]
    floor = tuple(sum(least[name][i] for name in order if name not in active) for i in range(len(linear)))
    for constraint, lowest in zip(linear, floor, strict=True):
        if lowest > constraint.limit + constraint.slack:
            remedy = f"the least possible sum is {lowest:g}; raise the limit"
            raise BadInput(
                "a space must have a point that meets its constraints", f"a limit of {constraint.limit:g}", "", remedy
            )
    limit = tuple(each.limit + each.slack for each in linear)
    return Plan(order, active, children, floor, limit, rise, _by_name(choices, constraints))


def walk(
    plan: Plan, order: Sequence[str], candidates: Callable[[str], Sequence[int]], patience: int
) -> Iterator[Indices]:
    """All points that take each active choice from its candidates, in their order; `order` has parents first.

    Ends when there are no more, or after `patience` decisions since the last point found.
    """

    def next_active(start: int) -> int | None:
        return next((i for i in range(start, len(order)) if plan.is_active(order[i], chosen)), None)

    chosen: Indices = {}
    first = next_active(0)
    if first is None:
        yield {}
        return
    frames = [(first, iter(candidates(order[first])), plan.floor)]
    steps = 0
    while frames and steps <= patience:
        position, remaining, sums = frames[-1]
        name = order[position]
        chosen.pop(name, None)
        index = next(remaining, None)
        if index is None:
            frames.pop()
            continue
        steps += 1
        if plan.floor:
            sums = tuple(map(float.__add__, sums, plan.rise[name][index]))
            if any(total > limit for total, limit in zip(sums, plan.limit, strict=True)):
                continue
        chosen[name] = index
        if any(bad.items() <= chosen.items() for bad in plan.forbidden.get(name, ())):
            continue
        following = next_active(position + 1)
        if following is None:
            yield dict(chosen)
            steps = 0
        else:
            frames.append((following, iter(candidates(order[following])), sums))


def _condition(name: str, choices: Mapping[str, Choice]) -> tuple[str, frozenset[int]]:
    when = choices[name].when
    assert when is not None
    if when.name not in choices:
        raise BadInput("a condition must name a choice of the space", repr(when.name), name)
    indices = [choices[when.name].index(value) for value in when.values]
    if None in indices or not indices:
        listed = f"{list(when.values)}, but {when.name} has {list(choices[when.name].values)}"
        raise BadInput("a condition must name values that its choice can have", listed, name)
    return when.name, frozenset(index for index in indices if index is not None)


def _parents_first(names: Mapping[str, Choice], parent: Mapping[str, str]) -> tuple[str, ...]:
    order: dict[str, None] = {}
    for name in names:
        chain: dict[str, None] = {}
        at: str | None = name
        while at is not None and at not in order:
            if at in chain:
                raise BadInput("conditions must not run in a circle", " <- ".join(chain), at)
            chain[at] = None
            at = parent.get(at)
        order.update(dict.fromkeys(reversed(chain)))
    return tuple(order)


def _by_name(choices: Mapping[str, Choice], constraints: Sequence[Constraint]) -> dict[str, list[Indices]]:
    table: dict[str, list[Indices]] = {}
    for constraint in constraints:
        if isinstance(constraint, Forbidden):
            found = {name: choices[name].index(value) for name, value in constraint.values.items()}
            indices = {name: index for name, index in found.items() if index is not None}
            if len(indices) < len(found) or not found:
                raise BadInput("a forbidden combination must name values that exist", repr(dict(constraint.values)))
            for name in indices:
                table.setdefault(name, []).append(indices)
    return table
