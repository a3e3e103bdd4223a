"""The laws of spaces: whatever comes out is valid, vectors and JSON come back as they went, counts are exact."""

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archsmith.errors import BadInput
from archsmith.space import Architecture, Choice, Condition, Forbidden, Linear, Space, Value

VALUES = st.one_of(
    st.lists(st.integers(-3, 9), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(-2, 2).map(lambda x: round(x, 2) + 0.0), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from(["relu", "gelu", "silu", "層"]), min_size=1, max_size=3, unique=True),
    st.just([True, False]),
)


@st.composite
def spaces(draw: st.DrawFn, constrained: bool = True) -> Space:
    """Up to seven choices in chains of conditions, some with constraints, given in any order."""
    choices: dict[str, Choice] = {}
    for number in range(draw(st.integers(1, 7))):
        when = None
        if choices and draw(st.booleans()):
            parent = draw(st.sampled_from(sorted(choices)))
            values = draw(st.lists(st.sampled_from(choices[parent].values), min_size=1, unique=True))
            when = Condition(parent, values)
        choices[f"c{number}"] = Choice(draw(VALUES), when)
    constraints: list[Linear | Forbidden] = []
    numeric = [name for name, choice in choices.items() if choice.ordinal]
    if constrained and numeric and draw(st.booleans()):
        weights = {name: float(draw(st.integers(-2, 3))) for name in numeric}
        constraints.append(Linear(weights, draw(st.integers(-4, 12))))
    if constrained and draw(st.booleans()):
        named = draw(st.lists(st.sampled_from(sorted(choices)), min_size=1, max_size=2, unique=True))
        constraints.append(Forbidden({name: draw(st.sampled_from(choices[name].values)) for name in named}))
    order = draw(st.permutations(sorted(choices)))
    try:
        return Space({name: choices[name] for name in order}, constraints)
    except BadInput as error:
        assume("constraints" not in str(error))
        raise


def brute_force(space: Space) -> set[Architecture]:
    """Every point, by trying every subset of names with every value."""

    def active(name: str, values: Mapping[str, Value]) -> bool:
        when = space.choices[name].when
        return when is None or (when.name in values and when.holds(values[when.name]))

    missing = object()
    found = set()
    for combination in itertools.product(*([*choice.values, missing] for choice in space.choices.values())):
        values = {n: v for n, v in zip(space.choices, combination, strict=True) if v is not missing}
        if all((name in values) == active(name, values) for name in space.choices) and not any(
            constraint.violated(values) for constraint in space.constraints
        ):
            found.add(Architecture(values))
    return found


def small(space: Space) -> bool:
    return int(np.prod([len(choice.values) + 1 for choice in space.choices.values()])) < 5_000


@settings(max_examples=150, deadline=None)
@given(spaces())
def test_points_and_membership_agree_with_brute_force(space: Space) -> None:
    assume(small(space))
    points = list(space.points())
    assert len(points) == len(set(points))
    assert set(points) == brute_force(space)
    assert all(point in space for point in points)
    assert set(space.points(np.random.default_rng(0))) == set(points)


@settings(max_examples=100, deadline=None)
@given(spaces(constrained=False))
def test_size_counts_the_points_without_constraints(space: Space) -> None:
    assume(small(space))
    assert space.size == len(brute_force(space))


@settings(max_examples=150, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_whatever_comes_out_is_valid(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assume(next(space.points(), None) is not None)
    a, b = space.sample(rng), space.sample(rng)
    mutated, crossed = space.mutate(a, rng), space.crossover(a, b, rng)
    for architecture in (a, b, mutated, crossed, *space.neighbours(a)):
        space.check(architecture)
    assert all(crossed[name] in (a.get(name), b.get(name)) for name in crossed) or space.constraints
    for neighbour in space.neighbours(a):
        changed = [name for name in a if name in neighbour and neighbour[name] != a[name]]
        assert len(changed) == 1


@settings(max_examples=100, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_a_mutation_differs_where_there_is_a_neighbour(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assume(next(space.points(), None) is not None)
    architecture = space.sample(rng)
    if next(space.neighbours(architecture), None) is not None:
        assert space.mutate(architecture, rng) != architecture


@settings(max_examples=150, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_decode_inverts_encode_and_any_vector_decodes_to_a_valid_point(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assume(next(space.points(), None) is not None)
    architecture = space.sample(rng)
    vector = space.encode(architecture)
    assert vector.shape == (space.width,)
    assert space.decode(vector) == architecture
    space.check(space.decode(rng.normal(size=space.width)))


@settings(max_examples=100, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_json_keeps_space_and_architecture(space: Space, seed: int) -> None:
    again = Space.from_json(json.loads(json.dumps(space.to_json(), sort_keys=True)))
    assert again.hash == space.hash and again == space and again.size == space.size
    assume(next(space.points(), None) is not None)
    architecture = space.sample(np.random.default_rng(seed))
    back = Architecture.from_json(json.loads(json.dumps(architecture.to_json())))
    assert back == architecture and back.hash == architecture.hash and back in again


def test_hashes_are_the_same_in_every_process() -> None:
    program = (
        "from archsmith.space import *\n"
        "print(Architecture({'b': 1.5, 'a': True, 'c': '層'}).hash)\n"
        "print(Space({'a': Choice([True, False]), 'h': Choice([4, 8], Condition('a', [True]))}).hash)"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {"cc074f44dc67448f\n1ad22eca2e45cfd2\n"}


def deep(layers: int) -> dict[str, Choice]:
    """Layers that hold branches that hold widths."""
    choices: dict[str, Choice] = {}
    for i in range(layers):
        choices[f"{i}"] = Choice([True, False])
        choices[f"{i}.attention"] = Choice([True, False], Condition(f"{i}", [True]))
        choices[f"{i}.heads"] = Choice(range(1, 13), Condition(f"{i}.attention", [True]))
        choices[f"{i}.ffn"] = Choice(range(128, 1537, 128), Condition(f"{i}", [True]))
    return choices


def test_conditions_chain() -> None:
    space = Space(deep(1))
    assert space.size == 1 + (12 + 1) * 12
    without = Architecture({"0": False})
    assert without in space
    assert Architecture({"0": True, "0.attention": False, "0.ffn": 128}) in space
    assert Architecture({"0": True, "0.attention": False, "0.heads": 2, "0.ffn": 128}) not in space
    assert Architecture({"0": False, "0.ffn": 128}) not in space


def test_vast_spaces_work_under_a_tight_limit() -> None:
    choices = deep(24)
    weights = {name: 1.0 for name in choices if name.endswith("ffn")}
    forbidden = [Forbidden({f"{i}": False, f"{i + 1}": False}) for i in range(0, 24, 2)]
    space = Space(choices, [Linear(weights, 128 * 13), *forbidden])
    assert space.size == (1 + 13 * 12) ** 24 > 10**30
    rng = np.random.default_rng(0)
    a, b = space.sample(rng), space.sample(rng)
    assert a != b
    for architecture in (a, b, space.mutate(a, rng), space.crossover(a, b, rng), space.decode(space.encode(b))):
        space.check(architecture)
    assert sum(int(a.get(name, 0)) for name in weights) <= 128 * 13


def test_values_are_drawn_evenly() -> None:
    space = Space({"a": Choice(["x", "y", "z"]), "b": Choice([1, 2], Condition("a", ["x"]))})
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng)["a"] for _ in range(3_000)]
    assert all(abs(drawn.count(value) - 1_000) < 120 for value in ("x", "y", "z"))


def test_true_and_one_are_different_values() -> None:
    space = Space({"a": Choice([1, True, 1.0])})
    assert len({point.hash for point in space.points()}) == 3
    assert Architecture({"a": np.int64(1)}) == Architecture({"a": 1}) != Architecture({"a": True})


ONE = Choice([1, 2])
BAD_SPACES = {
    "no value": (lambda: Choice([]), "at least one value"),
    "a value twice": (lambda: Choice([1, 1]), "must differ"),
    "not a number": (lambda: Choice([float("nan")]), "a value must be"),
    "a list as value": (lambda: Choice([[1]]), "a value must be"),
    "condition on nothing": (lambda: Space({"a": Choice([1], Condition("b", [1]))}), "a condition must name a choice"),
    "condition on no value": (
        lambda: Space({"a": ONE, "b": Choice([1], Condition("a", [3]))}),
        "values that its choice can have",
    ),
    "circle": (
        lambda: Space({"a": Choice([1], Condition("b", [1])), "b": Choice([1], Condition("a", [1]))}),
        "must not run in a circle",
    ),
    "limit too low": (lambda: Space({"a": ONE}, [Linear({"a": 1.0}, 0.5)]), "least possible sum is 1"),
    "weight on nothing": (lambda: Space({"a": ONE}, [Linear({"b": 1.0}, 5)]), "must name choices"),
    "weight on a string": (lambda: Space({"a": Choice(["x"])}, [Linear({"a": 1.0}, 5)]), "numbers as values"),
    "forbidden nothing": (lambda: Space({"a": ONE}, [Forbidden({})]), "must name values that exist"),
    "forbidden value unknown": (lambda: Space({"a": ONE}, [Forbidden({"a": 7})]), "must name values that exist"),
    "all forbidden": (
        lambda: Space({"a": Choice([1])}, [Forbidden({"a": 1})]).sample(np.random.default_rng(0)),
        "must have a point",
    ),
    "broken JSON": (lambda: Space.from_json({"choices": [{"name": "a"}]}), "as Space.to_json writes it"),
    "unknown constraint": (
        lambda: Space.from_json({"choices": [], "constraints": [{"kind": "cubic"}]}),
        "linear or forbidden",
    ),
    "vector too short": (lambda: Space({"a": ONE}).decode(np.zeros(3)), "shape (1,)"),
}


@pytest.mark.parametrize("name", BAD_SPACES)
def test_a_space_that_cannot_be_says_why(name: str) -> None:
    make, reason = BAD_SPACES[name]
    with pytest.raises(BadInput) as caught:
        make()
    assert reason in str(caught.value)


BAD_POINTS = {
    "unknown name": ({"z": 1}, "must name choices of its space"),
    "unknown value": ({"a": 3}, "one of its values"),
    "missing": ({}, "every active choice"),
    "missing child": ({"a": 1}, "every active choice"),
    "inactive child": ({"a": 2, "b": True}, "must not give an inactive choice"),
    "over the limit": ({"a": 1, "b": True}, "sum of weights is 3, over 2"),
    "forbidden": ({"a": 2, "c": "x"}, "is forbidden"),
}


@pytest.mark.parametrize("name", BAD_POINTS)
def test_a_point_outside_says_why(name: str) -> None:
    choices = {
        "a": Choice([1, 2]),
        "b": Choice([True, False], Condition("a", [1])),
        "c": Choice(["x", "y"], Condition("a", [2])),
    }
    space = Space(choices, [Linear({"a": 1.0, "b": 2.0}, 2), Forbidden({"a": 2, "c": "x"})])
    values, reason = BAD_POINTS[name]
    with pytest.raises(BadInput) as caught:
        space.check(values)
    assert reason in str(caught.value)
    assert Architecture(values) not in space


HUGE = 10**400  # more than a float can hold


@pytest.mark.parametrize(
    ("choices", "weights", "limit"),
    [
        ({"a": [1, HUGE]}, {"a": 1}, 5),
        ({"a": [1, 2]}, {"a": HUGE}, 5),
        ({"a": [1, 2]}, {"a": 1}, HUGE),
        ({"a": [1, 1e308]}, {"a": 10}, 5),
        ({"a": [1, 1e308], "b": [1, 1e308]}, {"a": 1, "b": 1}, 5),
    ],
    ids=["value", "weight", "limit", "product", "sum"],
)
def test_numbers_beyond_a_float_are_said_on_one_short_line(
    choices: dict[str, list[float]], weights: dict[str, float], limit: float
) -> None:
    listed = [{"name": name, "values": values} for name, values in choices.items()]
    data = {"choices": listed, "constraints": [{"kind": "linear", "weights": weights, "limit": limit}]}
    with pytest.raises(BadInput, match="must be finite") as caught:
        Space.from_json(data)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)
