"""What a strategy has learnt from the history: a state that is folded over it trial by trial, and a cache of that."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from archsmith.search.order import usable
from archsmith.space import Space
from archsmith.trial import Trial

S = TypeVar("S")


class Fold(Generic[S]):
    """`state(space, history)`: `begin(space)`, then `step(state, trial, reward)` for each usable trial, in place.

    `reward` (see `Rewards`) depends on the trials up to that one alone. The state of the last history is kept: where a
    history goes on from it, only the new trials are folded in. So what comes out is the same whatever was asked before,
    and how long it takes is not.
    """

    def __init__(
        self, objectives: Sequence[str], begin: Callable[[Space], S], step: Callable[[S, Trial, float], None]
    ) -> None:
        self.objectives, self.begin, self.step = tuple(objectives), begin, step
        self._space = ""
        self._folded: list[Trial] = []
        self._rewards = Rewards()
        self._state: S | None = None

    def state(self, space: Space, history: Sequence[Trial]) -> S:
        """The caller must not change it."""
        done = usable(history, self.objectives)
        goes_on = self._space == space.hash and len(self._folded) <= len(done)
        pairs = zip(self._folded, done, strict=False)
        if self._state is None or not goes_on or any(a is not b and a != b for a, b in pairs):
            self._space, self._folded, self._rewards, self._state = space.hash, [], Rewards(), self.begin(space)
        for trial in done[len(self._folded) :]:
            self.step(self._state, trial, self._rewards.of([trial.values[name] for name in self.objectives]))
            self._folded.append(trial)
        return self._state


class Rewards:
    """A number from 0 to 1 for each trial in turn: the share of the trials up to it that it is no worse than.

    Ranks need no scale and do not mind a few very bad points; that later trials play no part makes them foldable. With
    several objectives, what neither beats nor is beaten counts half: all of a front is worth the same.

    >>> rewards = Rewards()
    >>> [round(rewards.of([lost]), 2) for lost in (2.0, 1.0, 3.0)]
    [0.5, 0.75, 0.17]
    """

    def __init__(self) -> None:
        self._sorted: list[float] = []
        self._points = np.empty((0, 0))

    def of(self, lost: Sequence[float]) -> float:
        """The reward of the next trial, from its objectives, minimised."""
        if len(lost) == 1:
            below, up_to = bisect_left(self._sorted, lost[0]), bisect_right(self._sorted, lost[0])
            self._sorted.insert(up_to, lost[0])
            beaten, beats, count = below, len(self._sorted) - 1 - up_to, len(self._sorted)
        else:
            point = np.array(lost)
            others = self._points.reshape(-1, len(lost))
            beats = int((np.all(point <= others, axis=1) & np.any(point < others, axis=1)).sum())
            beaten = int((np.all(others <= point, axis=1) & np.any(others < point, axis=1)).sum())
            self._points, count = np.vstack([others, point]), len(others) + 1
        return (beats + (count - beats - beaten) / 2) / count
