"""Deep Q-learning over the same episodes as the table: Mnih et al. 2015, with Double Q (van Hasselt et al. 2016).

The network reads which step it is and all decisions so far, as one-hot (T x V), and gives Q of each value of the next
choice; the only reward comes at the end, and nothing is discounted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.search.episodes import Episodes, prefixes
from archsmith.search.fold import Fold
from archsmith.search.fresh import different, fresh
from archsmith.search.order import usable
from archsmith.search.qlearning import explored
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

HIDDEN, RATE = 64, 3e-3
UPDATES, SAMPLED = 4, 32  # gradient steps after each trial, and transitions in each
SLOW = 0.05  # share of the network that the target network moves by


class Network:
    """Q and its target, the optimiser, and the replay memory of (state, action, next state, reward, last)."""

    def __init__(self, space: Space) -> None:
        self.episodes = Episodes(space)
        steps, most = self.episodes.steps, self.episodes.most
        self.mask = self.episodes.mask()
        self.rng = np.random.default_rng(0)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.q, self.target = (_layers(max(1, steps * most + steps), most) for _ in range(2))
        self.target.load_state_dict(self.q.state_dict())
        self.optimiser = torch.optim.Adam(self.q.parameters(), lr=RATE)
        self.memory: list[tuple[Tensor, int, Tensor, float, int, int]] = []

    def state(self, step: int, so_far: Tensor) -> Tensor:
        """(T + T x V,)"""
        at = torch.zeros(self.episodes.steps)
        at[step] = 1.0
        return torch.cat([at, so_far])

    def values(self, step: int, actions: list[int]) -> np.ndarray:
        """Q (values of the step's choice,)."""
        padded = [*actions, *[-1] * (self.episodes.steps - len(actions))]
        so_far = list(prefixes(padded, self.episodes.most))[step]
        with torch.no_grad():
            q: np.ndarray = self.q(self.state(step, so_far)).numpy()
        return q[: self.episodes.sizes[step]]


def _layers(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


def step(network: Network, trial: Trial, reward: float) -> None:
    """Put an episode into memory and take a few gradient steps on what is drawn from it."""
    episodes = network.episodes
    actions = episodes.actions(trial.proposal.architecture)
    before = list(prefixes(actions, episodes.most))
    decided = [i for i, action in enumerate(actions) if action >= 0]
    if not decided:
        return
    for here, there in zip(decided, [*decided[1:], -1], strict=True):
        state = network.state(here, before[here])
        following = state if there < 0 else network.state(there, before[there])
        network.memory.append((state, actions[here], following, reward, here, there))
    for _ in range(UPDATES):
        rows = [network.memory[i] for i in network.rng.integers(len(network.memory), size=SAMPLED).tolist()]
        _update(network, rows)


def _update(network: Network, rows: Sequence[tuple[Tensor, int, Tensor, float, int, int]]) -> None:
    states, following = torch.stack([row[0] for row in rows]), torch.stack([row[2] for row in rows])
    actions = torch.tensor([row[1] for row in rows])
    rewards, there = torch.tensor([row[3] for row in rows]), torch.tensor([row[5] for row in rows])
    with torch.no_grad():
        able = network.mask[there.clamp_min(0)]
        best = network.q(following).masked_fill(~able, -1e9).argmax(1)
        later = network.target(following).gather(1, best[:, None])[:, 0]
        goal = torch.where(there < 0, rewards, later)
    told = network.q(states).gather(1, actions[:, None])[:, 0]
    loss = nn.functional.smooth_l1_loss(told, goal)
    network.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    network.optimiser.step()
    with torch.no_grad():
        for slow, fast in zip(network.target.parameters(), network.q.parameters(), strict=True):
            slow.lerp_(fast, SLOW)


def deep_q_learning(objectives: Sequence[str], *, budget: int = 100) -> Strategy:
    """A Q-network over the space's choices in their order; rewards are ranks from 0 to 1."""
    if budget < 1:
        raise BadInput("Q-learning needs a budget of at least 1", str(budget))
    fold = Fold(objectives, Network, step)

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        network = fold.state(space, history)
        chance = explored(len(usable(history, objectives)), budget)
        best: dict[tuple[int, ...], int] = {}

        def pick(at: int, actions: list[int]) -> int:
            if rng.random() < chance:
                return int(rng.integers(network.episodes.sizes[at]))
            so_far = tuple(actions)
            if so_far not in best:
                best[so_far] = int(network.values(at, actions).argmax())
            return best[so_far]

        def draw() -> Architecture:
            return network.episodes.architecture(network.episodes.play(pick))

        return different(history, n, lambda seen: fresh(space, seen, draw, rng))

    return propose
