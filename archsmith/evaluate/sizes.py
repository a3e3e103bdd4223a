"""Which networks of a declared space are large, and which are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from archsmith.build import Blueprint
from archsmith.build.plan import Part as Plan
from archsmith.errors import BadInput
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.paper import paper_costs
from archsmith.space import Architecture, Space, Value

Values = Mapping[str, tuple[Value, ...]]  # choice -> what it may be, the largest first


def ranked(ground: Ground, blueprint: Blueprint) -> dict[str, tuple[Value, ...]]:
    """The values of each choice from the one whose network takes most multiply-accumulates to the one that takes least,
    all else at its largest; of equal ones the later is the larger where they are numbers. Those that cannot run at the
    largest come last."""
    space = blueprint.space
    values = {name: choice.values[-1 if choice.ordinal else 0] for name, choice in space.choices.items()}
    order: dict[str, tuple[Value, ...]] = {}
    for _ in range(2):  # what is large may hang on what is decided later
        for name in space.order:
            choice, around = space.choices[name], _active(space, values, name)
            listed = choice.values[::-1] if choice.ordinal else choice.values
            cost = [_macs(ground, blueprint, {**around, name: value}) for value in listed]
            order[name] = tuple(listed[i] for i in sorted(range(len(listed)), key=lambda i: -cost[i]))
            values[name] = order[name][0]
    return order


def _active(space: Space, values: Mapping[str, Value], name: str) -> dict[str, Value]:
    """The values, of which those that a choice hangs on are such that it is active."""
    found, when = dict(values), space.choices[name].when
    while when is not None:
        if not when.holds(found[when.name]):
            found[when.name] = when.values[-1]
        when = space.choices[when.name].when
    return found


def _macs(ground: Ground, blueprint: Blueprint, values: Mapping[str, Value]) -> float:
    try:
        return paper_costs(ground.plan(blueprint, nearest(blueprint.space, values), prune=False))["macs"]
    except BadInput:
        return -1.0


def nearest(space: Space, values: Mapping[str, Value]) -> Architecture:
    """The point that has these values of all choices, as far as its constraints allow, without inactive ones."""
    return space.decode(space.encode(values))


def ends(ground: Ground, blueprint: Blueprint, order: Values) -> list[Plan]:
    """The plans of the largest and of the smallest network by what is ranked, where they can run."""
    found: list[Plan] = []
    for position in (0, -1):
        with suppress(BadInput):
            values = {name: values[position] for name, values in order.items()}
            found.append(ground.plan(blueprint, nearest(blueprint.space, values), prune=False))
    return found


def extremes(ground: Ground, blueprint: Blueprint, drawn: Sequence[tuple[Architecture, Plan]]) -> tuple[Plan, Plan]:
    """The plans of the networks with most and with fewest weights (of as many: with most and fewest
    multiply-accumulates): the extremes of those drawn, of which then one choice at a time takes the value that goes
    furthest, until none goes further."""
    return _extreme(ground, blueprint, drawn, 1), _extreme(ground, blueprint, drawn, -1)


def _extreme(ground: Ground, blueprint: Blueprint, drawn: Sequence[tuple[Architecture, Plan]], sign: int) -> Plan:
    def size(plan: Plan) -> tuple[float, float]:
        costs = paper_costs(plan)
        return sign * costs["parameters"], sign * costs["macs"]

    space = blueprint.space
    point, plan = max(drawn, key=lambda pair: size(pair[1]))
    before: Architecture | None = None
    while point != before:
        before = point
        for name in before:
            for value in space.choices[name].values if name in point else ():  # not if what it hangs on has changed
                with suppress(BadInput):
                    other = nearest(space, {**point, name: value})
                    if size(found := ground.plan(blueprint, other, prune=False)) > size(plan):
                        point, plan = other, found
    return plan
