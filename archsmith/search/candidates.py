"""Where a model of the space looks for its next proposal: what a predictor is asked about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from archsmith.space import Architecture, Space
from archsmith.trial import Trial

Features = Callable[[Architecture], np.ndarray]
SMALL, KEPT = 20_000, 100_000  # points of a space that are all gone through, and vectors that are kept
DECISIONS, COUNTS = 4000, (60, 300)  # decisions in each part, and architectures at least and at most


def candidates(
    space: Space,
    best: Sequence[Trial],
    seen: set[Architecture],
    rng: np.random.Generator,
) -> list[Architecture]:
    """Architectures that were not seen: one part around the best trials (single changes, several, crossings of two),
    another drawn from the whole space; fewer of a space with very many choices, where each takes its time."""
    near = far = int(np.clip(DECISIONS // max(1, len(space.choices)), *COUNTS))
    found: dict[Architecture, None] = {}
    parents = [trial.proposal.architecture for trial in best]
    for count in range(near if parents else 0):
        # The best first, and each less often than the one before it.
        parent = parents[min(int(rng.geometric(0.2)) - 1, len(parents) - 1)]
        if count % 4 == 3:
            point = space.crossover(parent, parents[int(rng.integers(len(parents)))], rng)
        else:
            point = parent
            for _ in range(1 + count % 3):
                point = space.mutate(point, rng)
        if point not in seen:
            found[point] = None
    for _ in range(far):
        point = space.sample(rng)
        if point not in seen:
            found[point] = None
    return list(found)


def learnt_from(done: int, first: int, grown: float, least: int = 1) -> int:
    """How many of `done` trials a model has seen that is begun with `first` and trained anew whenever they have grown
    by a factor, and by `least` at the least.

    >>> [learnt_from(done, 10, 1.4) for done in (10, 13, 14, 19, 20)]
    [10, 10, 14, 14, 20]
    """
    count = first
    while (more := max(count + least, round(count * grown))) <= done:
        count = more
    return count


class Pool:
    """What a model is asked about, with feature vectors: the whole of a small space, and candidates of a large one.

    Vectors and the points of a small space are made once and kept, those of the last space: a cache, since they depend
    on the space alone.
    """

    def __init__(self, features: Features | None) -> None:
        self._features = features
        self._known: dict[Architecture, np.ndarray] = {}
        self._of = ""  # the space that they are encoded for
        self._whole: tuple[str, Whole] | None = None

    def vectors(self, space: Space, architectures: Sequence[Architecture]) -> np.ndarray:
        """(n, d) float64: the space's encoding, and beside it the features where there are any."""
        if len(self._known) > KEPT or self._of != space.hash:
            self._known.clear()
            self._of = space.hash
        scale = scale_of(space)
        for each in architectures:
            if each not in self._known:
                plain = space.encode(each) * scale
                more = [] if self._features is None else [np.asarray(self._features(each), dtype=float)]
                self._known[each] = np.concatenate([plain, *more])
        return np.stack([self._known[each] for each in architectures])

    def whole(self, space: Space) -> Whole | None:
        """All points of a small space, None of a large one."""
        if space.size > SMALL:
            return None
        if self._whole is None or self._whole[0] != space.hash:
            points = list(space.points())
            vectors = self.vectors(space, points) if points else np.empty((0, 0))
            self._whole = (space.hash, Whole(points, vectors, {point: i for i, point in enumerate(points)}))
        return self._whole[1]

    def asked(
        self, space: Space, best: Sequence[Trial], seen: set[Architecture], rng: np.random.Generator
    ) -> tuple[Sequence[Architecture], np.ndarray]:
        """Points that were not seen, and their vectors (n, d); none where all were."""
        whole = self.whole(space)
        if whole is None:
            points = candidates(space, best, seen, rng)
            return points, self.vectors(space, points) if points else np.empty((0, 0))
        left = np.flatnonzero(whole.unseen(seen))
        return _Some(whole.points, left), whole.vectors[left]


@dataclass(frozen=True, eq=False)
class Whole:
    """A space of which every point is known: points, vectors (n, d), and which row a point has."""

    points: Sequence[Architecture]
    vectors: np.ndarray
    rows: Mapping[Architecture, int]

    def unseen(self, seen: set[Architecture]) -> np.ndarray:
        """(n,) bool."""
        new = np.ones(len(self.points), dtype=bool)
        new[[self.rows[point] for point in seen if point in self.rows]] = False
        return new


class _Some(Sequence[Architecture]):
    """Some of many points, without making a list of them."""

    def __init__(self, points: Sequence[Architecture], rows: np.ndarray) -> None:
        self.points, self.rows = points, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        return self.points[int(self.rows[at])]


def scale_of(space: Space) -> np.ndarray:
    """(width,) what coordinates are multiplied by: 1 for numbers, the root of a half for one-hot choices, which halves
    the squared distance between two values without order, so that it is that of 0 and 1."""
    scales: list[float] = []
    for choice in space.choices.values():
        scales += [1.0] if choice.ordinal else [0.5**0.5] * len(choice.values)
    return np.array(scales)
