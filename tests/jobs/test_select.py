"""Selection on a hand-made terrain: the front agrees with brute force."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from archsmith.cost import LatencyModel
from archsmith.cost.table import Curve
from archsmith.evaluate.blocks import keeps_a_layer
from archsmith.jobs.select import (
    Point,
    Terrain,
    at_most,
    front,
    full_point,
    non_dominated,
    searched_space,
    streams_of,
)
from archsmith.model.anatomy import Anatomy, Axis, Branch
from archsmith.space import Architecture, Choice, Space, Value

HEADS, FFN, STREAM = (4, 2), (30, 20, 10), (8, 4)


def terrain(layers: int = 2, seed: int = 0, stream: bool = True, removal: float = 3.0) -> Terrain:
    """Layers of attention and feed-forward, a residual width; costs by hand, scores drawn. `removal`: how much the
    layers matter."""
    rng = np.random.default_rng(seed)
    axes: list[Axis] = [Axis("residual", "residual", 8, ())] if stream else []
    branches: list[Branch] = []
    for index in range(layers):
        name = f"layer.{index}"
        axes += [Axis(f"{name}.heads", "heads", 4, (), name), Axis(f"{name}.ffn", "ffn", 30, (), name)]
        axes += [Axis(f"{name}.query.width", "width", 8, (), name)]
        branches += [
            Branch(name, "layer", name, tuple(axis.name for axis in axes if axis.layer == name)),
            Branch(
                f"{name}.attention", "attention", f"{name}.attention", (f"{name}.heads", f"{name}.query.width"), name
            ),
        ]
    anatomy = Anatomy({axis.name: axis for axis in axes}, {branch.name: branch for branch in branches}, ())
    choices = searched_space(anatomy).choices
    kinds = {"heads": HEADS, "ffn": FFN, "residual": STREAM}
    small = {
        name: Choice(kinds[anatomy.axes[name].kind], choice.when) if name in anatomy.axes else choice
        for name, choice in choices.items()
    }
    scores: dict[str, dict[Value, float]] = {}
    for name, choice in small.items():
        steps = np.cumsum(np.r_[0.0, rng.uniform(0.1, 1.0, len(choice.values) - 1)])
        scale = removal if name in anatomy.branches else 1.0
        scores[name] = {value: float(step * scale) for value, step in zip(choice.values, steps, strict=True)}
    curves = {
        "layer.*.heads": Curve((2.0, 4.0), (0.2, 0.5), (0.3, 0.4)),
        "layer.*.ffn": Curve((10.0, 20.0, 30.0), (0.1, 0.5, 0.6), (0.2, 0.6, 1.3)),
        "layer.*": Curve((1.0,), (0.05,), (0.02,)),
    }
    return Terrain(anatomy, Space(small), scores, LatencyModel((0.3, 0.2), curves))


def brute_force(ground: Terrain) -> list[Point]:
    """Every architecture that keeps a layer."""
    return [
        Point(each, sum(ground.scores[name][value] for name, value in each.items()), ground.ms(each))
        for each in every(ground.space)
        if keeps_a_layer(ground.anatomy, each)
    ]


def unbeaten(points: list[Point]) -> list[tuple[Value, float, float]]:
    """(residual width, ms, score), rounded, of what no other of the same width beats."""
    plain = {(p.architecture.get("residual", 0), round(p.ms, 9), round(p.score, 9)) for p in points}
    return sorted(p for p in plain if not any(q != p and q[0] == p[0] and q[1] <= p[1] and q[2] <= p[2] for q in plain))


def every(space: Space) -> list[Architecture]:
    names = list(space.choices)
    found = {
        full_point(space, dict(zip(names, values, strict=True)))
        for values in itertools.product(*(space.choices[name].values for name in names))
    }
    return list(found)


@pytest.mark.parametrize("removal", [3.0, 0.5, 0.01])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_front_agrees_with_brute_force(layers: int, seed: int, stream: bool, removal: float) -> None:
    ground = terrain(layers, seed, stream, removal)
    points = front(ground)
    assert unbeaten(points) == unbeaten(brute_force(ground))
    assert [p.ms for p in points] == sorted(p.ms for p in points)
    assert len(points) <= 1.5 * len(unbeaten(points)), "ties that rounding makes, and nothing else that is beaten"
    for point in points:
        assert point.ms == pytest.approx(ground.ms(point.architecture))
        assert point.score == pytest.approx(sum(ground.scores[n][v] for n, v in point.architecture.items()))
        assert keeps_a_layer(ground.anatomy, point.architecture)
        assert full_point(ground.space, point.architecture) == point.architecture


def test_points_are_told_apart_by_their_stream() -> None:
    ground = terrain()
    points = front(ground)
    rows = streams_of(ground, points)
    assert sorted(p.ms for row in rows for p in row) == [p.ms for p in points]
    assert [{p.architecture["residual"] for p in row} for row in rows] == [{8}, {4}]
    for row in rows:
        assert non_dominated(row) == row


def test_widths_of_heads_are_not_searched() -> None:
    ground = terrain()
    assert not any(name.endswith("query.width") for name in searched_space(ground.anatomy).choices)


def test_no_network_without_layers_is_in_the_space() -> None:
    space = searched_space(terrain(layers=2).anatomy)
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(60)]
    drawn += [space.mutate(drawn[0], rng) for _ in range(60)]
    assert all(point["layer.0"] or point["layer.1"] for point in drawn)
    assert any(not point["layer.0"] for point in drawn)


@pytest.mark.parametrize(("kinds", "points"), [(("width",), 3), (("residual",), 2), (("width", "residual"), 6)])
def test_a_network_without_layers_has_a_front_too(kinds: tuple[Any, ...], points: int) -> None:
    """A plain perceptron has widths alone; where only the residual width is free, the front is its values."""
    axes = {kind: Axis(kind, kind, 8, ()) for kind in kinds}
    choices = {"width": Choice((8, 4, 2)), "residual": Choice((8, 4))}
    space = Space({kind: choices[kind] for kind in kinds})
    scores = {kind: {value: 8.0 - float(value) for value in space.choices[kind].values} for kind in kinds}
    curves = {"width": Curve((2.0, 8.0), (0.5, 2.0), (0.0, 0.0))}
    ground = Terrain(Anatomy(axes, {}, ()), space, scores, LatencyModel((0.0, 1.0), curves if "width" in kinds else {}))
    assert len(front(ground)) == points
    assert set(searched_space(ground.anatomy).choices) == set(kinds)


KEPT: list[tuple[dict[str, Value], bool]] = [
    ({}, True),
    ({"stage.0": False}, True),
    ({"stage.0": True, "stage.1": False, "stage.0.block.0": False}, True),
    ({"stage.0": False, "stage.1": False}, False),  # what is inside is gone with them
]


@pytest.mark.parametrize(("architecture", "kept"), KEPT)
def test_a_layer_inside_another_is_no_layer_of_its_own(architecture: dict[str, Value], kept: bool) -> None:
    stages = [Branch(f"stage.{n}", "layer", f"stage.{n}", ()) for n in range(2)]
    inner = [Branch(f"{stage.name}.block.0", "layer", f"{stage.name}.block.0", (), stage.name) for stage in stages]
    anatomy = Anatomy({}, {branch.name: branch for branch in [*stages, *inner]}, ())
    assert keeps_a_layer(anatomy, architecture) is kept


def point(ms: float, score: float) -> Point:
    return Point(Architecture({"a": ms, "b": score}), score, ms)


POINTS = [point(1, 9), point(2, 5), point(2, 6), point(3, 5), point(4, 1)]


def test_what_is_beaten_is_left_out() -> None:
    assert non_dominated(POINTS[::-1]) == [POINTS[0], POINTS[1], POINTS[4]]


@pytest.mark.parametrize(("ms", "best"), [(0.5, None), (1, 0), (2.5, 1), (3, 1), (9, 4)])
def test_the_best_within_a_latency(ms: float, best: int | None) -> None:
    assert at_most(POINTS, ms) == (None if best is None else POINTS[best])


WHOLE: list[tuple[dict[str, Value], dict[str, Value]]] = [
    ({}, {"layer.0": True, "layer.0.attention": True, "layer.0.heads": 4, "layer.0.ffn": 30}),
    ({"layer.0": False, "layer.0.ffn": 10}, {"layer.0": False}),
    ({"layer.0.attention": False}, {"layer.0": True, "layer.0.attention": False, "layer.0.ffn": 30}),
]


@pytest.mark.parametrize(("values", "wanted"), WHOLE)
def test_a_full_point_is_whole_where_nothing_is_said(values: Mapping[str, Value], wanted: Mapping[str, Value]) -> None:
    assert dict(full_point(terrain(1, stream=False).space, values)) == wanted
