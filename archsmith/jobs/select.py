"""Which architectures are worth making: the exact front of block scores against predicted latency.

Scores and latencies of blocks add up for one residual width, so for each of those the whole front is exact; the widths
themselves are few and are gone through one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsmith.cost import LatencyModel
from archsmith.evaluate.blocks import factors_of, keeps_a_layer, outer_layers
from archsmith.evaluate.latency import predict
from archsmith.evaluate.scores import Scores
from archsmith.model import Anatomy, derive_space
from archsmith.search import Option, exact_front
from archsmith.space import Architecture, Choice, Forbidden, Space, Value

STREAMS = (1.0, 0.67, 0.5, 0.34)  # residual widths that are tried, as shares of the original's


@dataclass(frozen=True)
class Point:
    """An architecture that is worth making: its score (sum over blocks, minimised) and predicted milliseconds."""

    architecture: Architecture
    score: float
    ms: float


@dataclass(frozen=True, eq=False)
class Terrain:
    """What selection knows: the space, the block scores, the latency model of the setting that is shipped."""

    anatomy: Anatomy
    space: Space
    scores: Scores
    latency: LatencyModel

    def ms(self, architecture: Mapping[str, Value]) -> float:
        """Predicted milliseconds."""
        return predict(self.latency, self.anatomy, architecture)


def searched_space(anatomy: Anatomy) -> Space:
    """The space that `optimize` searches: every branch and every axis, but for the width of single heads.

    Of the residual width a few values are tried, since all of the front is made for each of them. A layer is kept.
    """
    inner = {name for row in factors_of(anatomy).values() for name in row}
    choices: dict[str, Choice] = {}
    for name, choice in derive_space(anatomy).choices.items():
        axis = anatomy.axes.get(name)
        if name not in inner:
            choices[name] = (
                Choice(_streams(axis.size, choice), choice.when) if axis and axis.kind == "residual" else choice
            )
    layers = outer_layers(anatomy)
    keep = [Forbidden(dict.fromkeys(layers, False))] if layers and all(name in choices for name in layers) else []
    return Space(choices, keep)


def _streams(size: int, choice: Choice) -> tuple[Value, ...]:
    near = [min(choice.values, key=lambda value: abs(float(value) - share * size)) for share in STREAMS]
    return tuple(dict.fromkeys(near))


def front(terrain: Terrain) -> list[Point]:
    """The points of every residual width's own front, ascending in milliseconds.

    All of them keep a layer. What only a network without layers beats keeps just one, since of two the one that gains
    less could go too; so every form of one layer is put back into the picks that have none.
    """
    found: list[Point] = []
    for stream in _stream_values(terrain):
        groups = _groups(terrain, stream)
        fixed_score = sum(terrain.scores[name][value] for name, value in stream.items())
        whole_ms = terrain.ms(stream)
        if not groups:  # nothing else may change
            found.append(Point(full_point(terrain.space, stream), fixed_score, whole_ms))
            continue
        points: list[Point] = []
        for pick in exact_front(groups):
            values = full_point(terrain.space, {**stream, **pick.values})
            if keeps_a_layer(terrain.anatomy, values):
                points.append(Point(values, fixed_score + pick.score, whole_ms + pick.cost))
                continue
            for group, taken in zip(groups, pick.options, strict=True):
                for option in group:
                    values = full_point(terrain.space, {**stream, **pick.values, **option.values})
                    if keeps_a_layer(terrain.anatomy, values):
                        score = fixed_score + pick.score - group[taken].score + option.score
                        points.append(Point(values, score, whole_ms + pick.cost - group[taken].cost + option.cost))
        found += non_dominated(points)
    return sorted(found, key=lambda point: (point.ms, point.score))


def full_point(space: Space, values: Mapping[str, Value]) -> Architecture:
    """The full point of a space that takes these values and is whole elsewhere."""
    point: dict[str, Value] = {}
    for name, choice in space.choices.items():
        if choice.when is None or (choice.when.name in point and choice.when.holds(point[choice.when.name])):
            point[name] = values.get(name, max(choice.values, key=float))
    return Architecture(point)


def non_dominated(points: Sequence[Point]) -> list[Point]:
    """Points that no other beats in score and milliseconds, ascending in milliseconds."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, p.score)):
        if not kept or point.score < kept[-1].score:
            kept.append(point)
    return kept


def at_most(points: Sequence[Point], ms: float) -> Point | None:
    """The best-scored point within a latency."""
    return min((point for point in points if point.ms <= ms), key=lambda p: (p.score, p.ms), default=None)


def streams_of(terrain: Terrain, points: Sequence[Point]) -> list[list[Point]]:
    """Points sorted by residual width, widest first: one list a width."""
    return [
        [p for p in points if all(p.architecture.get(name) == value for name, value in stream.items())]
        for stream in _stream_values(terrain)
    ]


def widest_of(terrain: Terrain, points: Sequence[Point]) -> list[Point]:
    """The points of the widest residual width that any of them has."""
    return next(row for row in streams_of(terrain, points) if row)


def _stream_values(terrain: Terrain) -> list[dict[str, Value]]:
    """The residual widths to go through: all streams at like shares, or nothing where there is none."""
    names = [name for name in terrain.space.choices if name in terrain.anatomy.axes]
    names = [name for name in names if terrain.anatomy.axes[name].kind == "residual"]
    if not names:
        return [{}]
    most = max(len(terrain.space.choices[name].values) for name in names)
    found = []
    for number in range(most):
        chosen = {}
        for name in names:
            values = sorted(terrain.space.choices[name].values, key=float, reverse=True)
            chosen[name] = values[min(number, len(values) - 1)]
        found.append(chosen)
    return found


def _groups(terrain: Terrain, stream: Mapping[str, Value]) -> list[list[Option]]:
    """One group a layer that can be skipped, else one a block or axis; costs are differences from all whole."""
    space, whole = terrain.space, terrain.ms(stream)

    def option(values: Mapping[str, Value]) -> Option:
        score = sum(terrain.scores[name][value] for name, value in values.items())
        return Option(dict(values), score, terrain.ms({**stream, **values}) - whole)

    parents = {name: choice.when.name for name, choice in space.choices.items() if choice.when is not None}
    children: dict[str, list[str]] = {}
    for name, parent in parents.items():
        children.setdefault(parent, []).append(name)

    def within(name: str) -> list[Option]:
        """What one choice and all that hang on it may become."""
        choice = space.choices[name]
        if not isinstance(choice.values[0], bool):
            return [option({name: value}) for value in choice.values]
        inner = [within(child) for child in children.get(name, ())]
        kept = (
            [Option({name: True, **pick.values}, pick.score, pick.cost) for pick in exact_front(inner)]
            if inner
            else [Option({name: True}, 0.0, 0.0)]
        )
        return [*kept, option({name: False})]

    roots = [name for name in space.choices if name not in parents and name not in stream]
    return [within(name) for name in roots]
