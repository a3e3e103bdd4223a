"""Q-learning, one decision after another: Baker et al. 2017, "Designing Neural Network Architectures using
Reinforcement Learning" (MetaQNN).

An architecture is an episode: its choices are made in the order of the space. State s: which choice it is and what the
last one took; action u: the value. The reward r comes at the end:
Q(s, u) <- Q(s, u) + alpha (max_u' Q(s', u') - Q(s, u)), with r in place of the maximum after the last choice.
With the chance epsilon, which falls over the budget, an action is drawn at random.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from archsmith.errors import BadInput
from archsmith.search.fold import Fold
from archsmith.search.fresh import different, fresh
from archsmith.search.order import usable
from archsmith.space import Architecture, Space, Value
from archsmith.trial import Proposal, Strategy, Trial

RATE = 0.2  # alpha
REPLAYED = 32  # episodes that are gone through again after each new one, the latest twice
HOPE = 0.5  # Q of what was never done: the reward of a middling architecture
GREEDY_FROM = 0.4  # of the budget: epsilon has fallen from 1 to its least
LEAST_CHANCE = 0.1

State = tuple[str, Value | None]


class Table:
    """Q by state, then by action; and the episodes that are replayed."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.q: dict[State, dict[Value, float]] = {}
        self.episodes: deque[tuple[Architecture, float]] = deque(maxlen=500)
        self.rng = np.random.default_rng(0)  # of the replay: a state that is folded draws the same again

    def actions(self, state: State) -> dict[Value, float]:
        """Q of every value of the state's choice."""
        if state not in self.q:
            self.q[state] = dict.fromkeys(self.space.choices[state[0]].values, HOPE)
        return self.q[state]

    def learn(self, architecture: Architecture, reward: float) -> None:
        """One episode, from its end to its beginning."""
        after = reward
        last: Value | None = None
        path: list[tuple[State, Value]] = []
        for name in self.space.order:
            if name in architecture:
                path.append(((name, last), architecture[name]))
                last = architecture[name]
        for state, action in reversed(path):
            actions = self.actions(state)
            actions[action] += RATE * (after - actions[action])
            after = max(actions.values())


def step(table: Table, trial: Trial, reward: float) -> None:
    """Fold one trial in, and replay some."""
    table.episodes.append((trial.proposal.architecture, reward))
    again = table.rng.integers(len(table.episodes), size=min(REPLAYED, len(table.episodes))).tolist()
    for i in [-1, *again, -1]:
        table.learn(*table.episodes[i])


def q_learning(objectives: Sequence[str], *, budget: int = 100) -> Strategy:
    """Tabular Q-learning over the space's choices in their order; rewards are ranks from 0 to 1."""
    if budget < 1:
        raise BadInput("Q-learning needs a budget of at least 1", str(budget))
    fold = Fold(objectives, Table, step)

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        table = fold.state(space, history)
        chance = explored(len(usable(history, objectives)), budget)

        def choose(seen: set[Architecture]) -> Architecture | None:
            return fresh(space, seen, lambda: acted(table, chance, rng), rng)

        return different(history, n, choose)

    return propose


def explored(done: int, budget: int) -> float:
    """Epsilon: the chance of an action at random.

    >>> [round(explored(done, 100), 2) for done in (0, 20, 40, 100)]
    [1.0, 0.55, 0.1, 0.1]
    """
    return max(LEAST_CHANCE, 1.0 - (1.0 - LEAST_CHANCE) * done / max(1.0, GREEDY_FROM * budget))


def acted(table: Table, chance: float, rng: np.random.Generator) -> Architecture:
    """An episode: each choice at random with this chance, else the best known; what the space does not allow is drawn
    anew."""
    values: dict[str, Value] = {}
    last: Value | None = None
    for name in table.space.order:
        choice = table.space.choices[name]
        when = choice.when
        if when is not None and not (when.name in values and when.holds(values[when.name])):
            continue
        actions = table.q.get((name, last)) or dict.fromkeys(choice.values, HOPE)
        if rng.random() < chance:
            picked = choice.values[int(rng.integers(len(choice.values)))]
        else:
            most = max(actions.values())
            able = [value for value, q in actions.items() if q >= most - 1e-12]
            picked = able[int(rng.integers(len(able)))]
        values[name] = last = picked
    found = Architecture(values)
    return found if found in table.space else table.space.sample(rng)
