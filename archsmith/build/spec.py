"""A network with choices in it, as plain data: what may be chosen becomes a `Space`, and a point of it a network.

    {"choices": {"depth": [1, 2, 3], "width": [16, 32], "op": ["plain", "separable"]},
     "network": [{"conv": {"out": "$width", "kernel": 3}}, "relu",
                 {"repeat": "$depth", "name": "layer", "of":
                     {"residual": [{"pick": "$op", "of": {"plain": {"conv": {"out": "in", "kernel": 3}},
                                                          "separable": {"separable": {"out": "in", "kernel": 3}}}},
                                   "batch_norm", "relu"]}},
                 "mean", {"linear": {"out": "$classes"}}]}

A network is a list (one part after another), a word (a module without options), or an object of one module and its
options. `$name` is the value of a choice; `$width*2` twice that; `in*$ratio` the input's width times it. A name that is
no choice is given by the task (`$classes`, `$vocabulary`). Choices of a copy that has a name are its own: `layer0.op`,
`layer1.op`; `$/width` is the choice outside of all copies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.build.plan import MIXED, PICKED
from archsmith.errors import BadInput
from archsmith.space import JSON, Architecture, Choice, Condition, Constraint, Space, Value
from archsmith.space.constraint import constraint_from_json

REFERENCE = re.compile(r"(in\*)?\$(/?)([^*$/]+)(?:\*([0-9]+(?:[.][0-9]+)?))?")


Strengths = Mapping[str, Mapping[str, float]]  # choice -> value, as a word -> how much speaks for it (a logit)


@dataclass(frozen=True)
class Relaxed:
    """A network whose choices can all be mixed, the architecture that strengths of its choices come down to, and of
    which of its choices, each with a value as a word, that is made."""

    declared: Declared
    settle: Callable[[Strengths], Architecture]
    kept: Callable[[Strengths], Mapping[str, str]]


class Declared:
    """A network with choices: its `space`, and `static`, which puts values in. Choices of the `recipe` are of how
    networks are trained (`{"learning_rate": "$rate"}`).

    Raises `BadInput` for choices that nothing uses, and for what is no network.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Value]],
        network: JSON,
        constraints: Sequence[Constraint] = (),
        recipe: Mapping[str, JSON] | None = None,
    ) -> None:
        self.network = network
        self.recipe = dict(recipe or {})
        self._declared = {name: Choice(values) for name, values in choices.items()}
        self._found: dict[str, Choice] = {}
        self.needs: set[str] = set()  # what the task gives
        self.uses: dict[str, set[str]] = {}  # choice -> "pick", "repeat", or the options of modules that it sets
        self._enter(network, "", None)
        self._enter(self.recipe, "", None)
        used = {name.rpartition(".")[2] for name in self._found}
        idle = [name for name in choices if name not in used]
        if idle:
            raise BadInput("every choice must be used by the network", f"${idle[0]} is not", "", "remove the choice")
        self.space = Space(self._found, constraints)
        self.relaxed = Relaxed(self, self._strongest, self._kept)

    @classmethod
    def from_json(cls, data: JSON) -> Declared:
        """From an object of "choices" and "network"; constraints are those of a `Space`."""
        if not isinstance(data, Mapping) or not {"choices", "network"} <= set(data):
            raise BadInput('a declared space is an object of "choices" and "network"', repr(data)[:60])
        choices = data["choices"]
        lists = isinstance(choices, Mapping) and all(isinstance(values, list | tuple) for values in choices.values())
        if not lists:
            raise BadInput("choices are an object of lists", repr(choices)[:60])
        try:
            constraints = [constraint_from_json(each) for each in data.get("constraints", [])]
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput("constraints are those of a space", repr(error)[:60]) from error
        recipe = data.get("recipe", {})
        if not isinstance(recipe, Mapping):
            raise BadInput("a recipe is an object: what of the training, and a value or a choice", repr(recipe)[:60])
        return cls(choices, data["network"], constraints, recipe)

    def trained_by(self, architecture: Mapping[str, Value]) -> dict[str, Value]:
        """What an architecture says of how it is trained: learning rate, batch, and the like."""
        found: dict[str, Value] = _chosen(self.recipe, "", architecture, {})
        return found

    def static(self, architecture: Mapping[str, Value], given: Mapping[str, Value]) -> JSON:
        """The network of one architecture: lists, words and objects, no choice left in it."""
        return _chosen(self.network, "", {**given, **architecture}, {})

    def mixture(self, given: Mapping[str, Value], left: Mapping[str, Sequence[Value]] | None = None) -> JSON:
        """The network in which a pick is the sum of its parts, each times a weight of its own (DARTS); `left`: the
        values that each choice still has, all unless told.

        Raises `BadInput` for a space in which something else than a part is chosen: there is no sum of widths.
        """
        values = {name: choice.values for name, choice in self.space.choices.items()}
        return _chosen(self.network, "", given, {**values, **(left or {})})

    def _strongest(self, strength: Strengths) -> Architecture:
        """Of every active choice the strongest value; where the space does not allow them together, what is nearest."""
        values: dict[str, Value] = {}
        for name in self.space.order:
            choice = self.space.choices[name]
            if choice.when is None or (choice.when.name in values and choice.when.holds(values[choice.when.name])):
                of = strength[name]
                values[name] = max((v for v in choice.values if _key(v) in of), key=lambda value: of[_key(value)])
        found = Architecture(values)
        return found if found in self.space else self.space.decode(self.space.encode(values))

    def _kept(self, strength: Strengths) -> dict[str, str]:
        """The same, each value as a word."""
        return {name: _key(value) for name, value in self._strongest(strength).items()}

    def _enter(self, spec: JSON, scope: str, when: Condition | None, use: str = "") -> None:
        """Note the choices of a part, each active under the innermost choice that it hangs on, and what each is for."""
        if isinstance(spec, str):
            self._reference(spec, scope, when, use)
        elif isinstance(spec, Mapping) and "pick" in spec:
            _plain(spec["pick"], "pick", scope)
            if not isinstance(spec.get("of"), Mapping):
                raise BadInput('a pick has a part for each value under "of"', repr(spec.get("of"))[:60], scope)
            name = self._reference(spec["pick"], scope, when, "pick")
            values = self._found[name].values if name else ()
            options = {_key(key): part for key, part in spec["of"].items()}
            if not name or set(options) != {_key(value) for value in values}:
                law = 'a pick is of a choice, with a part for each of its values under "of"'
                raise BadInput(law, f"{spec['pick']}: {', '.join(options)} for {', '.join(map(_key, values))}", scope)
            for value in values:
                self._enter(options[_key(value)], scope, Condition(name, [value]))
        elif isinstance(spec, Mapping) and "repeat" in spec:
            name = self._reference(_plain(spec["repeat"], "repeat", scope), scope, when, "repeat")
            counts = [_count(value, scope) for value in (self._found[name].values if name else [spec["repeat"]])]
            if "of" not in spec:
                raise BadInput('a repeat has what is repeated under "of"', "none", scope)
            for i in range(max(counts)):
                more = [count for count in counts if count > i]
                inner = when if len(more) == len(counts) or not name else Condition(name, more)
                self._enter(spec["of"], _inside(scope, spec, i), inner)
        elif isinstance(spec, Mapping):
            inside = f"{scope}{spec['scope']}." if "scope" in spec else scope
            for key, part in spec.items():
                if key != "scope":
                    self._enter(part, inside, when, key)
        elif isinstance(spec, Sequence):
            for part in spec:
                self._enter(part, scope, when, use)

    def _reference(self, text: JSON, scope: str, when: Condition | None, use: str) -> str:
        """The full name of the choice that a text speaks of; empty where it speaks of none."""
        match = REFERENCE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            return ""
        _, outside, short, _ = match.groups()
        if short not in self._declared:
            self.needs.add(short)
            return ""
        name = short if outside else scope + short
        former = self._found.get(name)
        first = when if former is None else self._wider(former.when, when)
        self._found[name] = Choice(self._declared[short].values, first)
        self.uses.setdefault(name, set()).add(use)
        return name

    def _wider(self, one: Condition | None, other: Condition | None) -> Condition | None:
        """Where either holds: one of them if the other hangs on it, else always."""
        if one is None or other is None or one == other:
            return None if one is None or other is None else one
        if one.name == other.name:
            parent = self._found[one.name]
            both = [value for value in parent.values if one.holds(value) or other.holds(value)]
            return Condition(one.name, both) if len(both) < len(parent.values) else parent.when
        for first, second in ((one, other), (other, one)):
            above = self._found[second.name].when
            while above is not None:
                if above == first:
                    return first
                above = self._found[above.name].when
        return None


def _plain(told: JSON, what: str, scope: str) -> JSON:
    """A reference without a factor, or what is no reference. Raises `BadInput` for one with a factor."""
    match = REFERENCE.fullmatch(told) if isinstance(told, str) else None
    if match is not None and (match[1] or match[4]):
        raise BadInput(f"a {what} is of a choice as it is", told, scope, "declare a choice of its own")
    return told


def _count(value: Any, scope: str) -> int:
    """A number of copies."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadInput("a repeat is of a whole number, or of a choice of such", repr(value), scope)
    return value


def _chosen(spec: JSON, scope: str, values: Mapping[str, Value], mixed: Mapping[str, Sequence[Value]]) -> JSON:
    """The spec with every reference, pick and repeat carried out; a pick of one in `mixed` is a sum."""

    def inner(part: JSON, inside: str = scope) -> JSON:
        return _chosen(part, inside, values, mixed)

    if isinstance(spec, str):
        match = REFERENCE.fullmatch(spec)
        if match is None:
            return spec
        relative, _, _, factor = match.groups()
        value = _value(match, scope, values, mixed)
        if factor:
            value = round(float(value) * float(factor))
        return f"in*{value}" if relative else value
    if isinstance(spec, Mapping):
        if "pick" in spec:
            options = {_key(key): part for key, part in spec["of"].items()}
            name = _full(REFERENCE.fullmatch(spec["pick"]), scope, mixed)
            if name is not None:
                return {MIXED: [name, [[_key(value), inner(options[_key(value)])] for value in mixed[name]]]}
            wanted = _key(inner(spec["pick"]))
            return {PICKED: [wanted, inner(options[wanted])]}
        if "repeat" in spec:
            return [inner(spec["of"], _inside(scope, spec, i)) for i in range(int(inner(spec["repeat"])))]
        if "scope" in spec:
            return inner(spec["of"], f"{scope}{spec['scope']}.")
        return {key: inner(part) for key, part in spec.items()}
    if isinstance(spec, Sequence):
        return [inner(part) for part in spec]
    return spec


def _full(match: re.Match[str] | None, scope: str, known: Collection[str]) -> str | None:
    """The full name, among those that are known, of what a reference speaks of."""
    if match is None:
        return None
    _, outside, short, _ = match.groups()
    return next((name for name in ("" if outside else scope + short, short) if name in known), None)


def _value(match: re.Match[str], scope: str, values: Mapping[str, Value], mixed: Collection[str]) -> Any:
    name, short = _full(match, scope, values), match[3]
    if name is not None:
        return values[name]
    if _full(match, scope, mixed) is not None:
        law = "only what is picked can be mixed: parts of which each gives the same shape"
        raise BadInput(law, f"${short} says how large or how many", scope, "use a search of single paths: spos")
    law = "a network speaks of choices and of what the task gives"
    raise BadInput(law, f"${short}", scope, f"declare {short} under choices, or give it")


def _inside(scope: str, spec: Mapping[str, JSON], copy: int) -> str:
    return f"{scope}{spec['name']}{copy}." if "name" in spec else scope


def _key(value: Any) -> str:
    """The name under which a value's part lies in an object.

    >>> _key("conv"), _key(3), _key(True)
    ('conv', '3', 'true')
    """
    return value if isinstance(value, str) else json.dumps(value)
