"""Policy gradient: a controller that writes architectures, decision by decision, and is moved toward the better ones.

Zoph & Le 2017, "Neural Architecture Search with Reinforcement Learning" (REINFORCE with a baseline, Williams 1992); PPO
instead of it as in Zoph et al. 2018 (NASNet), by Schulman et al. 2017. The controller is an LSTM as there, or reads all
decisions so far by self-attention.

R: reward of an episode; b: baseline; u_t: decision t; pi: the controller.
  REINFORCE:  maximise (R - b) sum_t log pi(u_t | u_<t) + beta H(pi)
  PPO:        maximise min(rho A, clip(rho, 1 - e, 1 + e) A), rho = pi / pi_old, A = R - b, over the latest episodes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.search.episodes import Episodes
from archsmith.search.fold import Fold
from archsmith.search.fresh import different, fresh
from archsmith.space import Architecture, Space
from archsmith.trial import Proposal, Strategy, Trial

HIDDEN = 48
SPREAD = 0.2  # a logit further than this from the others, times ten, is all but certain: the first logits are near 0
ENTROPY = 0.02  # beta at the beginning; it falls to 0 over the budget
SMOOTH = 0.9  # of the baseline, an exponential mean of rewards
CLIP, PASSES, EPISODES = 0.2, 4, 16  # of PPO: e, how often the latest episodes are gone through, and how many of them

Controller = Literal["recurrent", "attention"]
Method = Literal["reinforce", "ppo"]


class Writer(nn.Module):
    """Logits of each decision from those before it; B: episodes, T: steps, V: values, H: hidden."""

    def __init__(self, episodes: Episodes, controller: Controller) -> None:
        super().__init__()
        steps, most = episodes.steps, episodes.most
        self.mask: Tensor
        self.register_buffer("mask", episodes.mask())
        self.taken = nn.Embedding(most + 2, HIDDEN)  # the value taken before; last but one: not active; last: the start
        self.place = nn.Embedding(max(1, steps), HIDDEN)
        self.attention = controller == "attention"
        if self.attention:
            layer = nn.TransformerEncoderLayer(HIDDEN, 4, 2 * HIDDEN, dropout=0.0, batch_first=True)
            self.body: nn.Module = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        else:
            self.body = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, most)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.most = most

    def forward(self, actions_BT: Tensor) -> Tensor:
        """Actions (-1: not active) -> log probabilities (B, T, V), each given the actions before it."""
        steps = actions_BT.shape[1]
        codes = torch.where(actions_BT < 0, self.most, actions_BT)
        start = torch.full_like(codes[:, :1], self.most + 1)
        h_BTH = self.taken(torch.cat([start, codes[:, :-1]], 1)) + self.place(torch.arange(steps))
        if self.attention:
            h_BTH = self.body(h_BTH, mask=nn.Transformer.generate_square_subsequent_mask(steps), is_causal=True)
        else:
            h_BTH = self.body(h_BTH)[0]
        logits = self.head(h_BTH).masked_fill(~self.mask[:steps], -1e9)
        return torch.log_softmax(logits, -1)


class Policy:
    """A controller, its optimiser, baseline and latest episodes."""

    def __init__(self, space: Space, method: Method, controller: Controller, budget: int) -> None:
        self.episodes, self.method, self.budget = Episodes(space), method, budget
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.writer = Writer(self.episodes, controller).eval()
        self.optimiser = torch.optim.Adam(self.writer.parameters(), lr=min(3e-2, 1.0 / budget**0.75))
        self.baseline = 0.5
        self.trials = 0
        self.latest: list[tuple[list[int], float, float]] = []  # actions, reward, log probability when drawn

    def log_probabilities(self, actions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Of whole episodes (B,), and the mean entropy of their decisions."""
        log_BTV = self.writer(actions_BT)
        active = actions_BT >= 0
        taken = log_BTV.gather(2, actions_BT.clamp_min(0)[..., None])[..., 0]
        entropy = -(log_BTV.exp() * log_BTV.clamp_min(-50)).sum(-1)
        return (taken * active).sum(1), (entropy * active).sum() / active.sum().clamp_min(1)

    def draw(self, rng: np.random.Generator, known: dict[tuple[int, ...], np.ndarray]) -> list[int]:
        """An episode of the present policy; `known` keeps the chances after decisions that have been drawn before."""

        def pick(step: int, actions: list[int]) -> int:
            so_far = tuple(actions)
            if so_far not in known:
                padded = torch.tensor([[*actions, *[-1] * (self.episodes.steps - len(actions))]])
                with torch.no_grad():
                    chance = self.writer(padded)[0, step].exp().double().numpy()[: self.episodes.sizes[step]]
                known[so_far] = chance / chance.sum()
            return int(rng.choice(len(known[so_far]), p=known[so_far]))

        return self.episodes.play(pick)

    def write(self, rng: np.random.Generator) -> Architecture:
        """One that is likely."""
        return self.episodes.architecture(self.draw(rng, {}))

    def learn(self, architecture: Architecture, reward: float) -> None:
        """Move the controller by one more episode."""
        actions = self.episodes.actions(architecture)
        self.trials += 1
        self.baseline = SMOOTH * self.baseline + (1 - SMOOTH) * reward
        if not actions:
            return
        if self.method == "reinforce":
            with torch.enable_grad():
                log_B, entropy = self.log_probabilities(torch.tensor([actions]))
                self._descend(-(reward - self.baseline) * log_B.sum(), entropy)
            return
        with torch.no_grad():  # the controller is as it was when it drew the episode, unless several were drawn at once
            drawn = float(self.log_probabilities(torch.tensor([actions]))[0])
        self.latest = [*self.latest, (actions, reward, drawn)][-EPISODES:]
        if self.trials % (EPISODES // 2) == 0:
            self._improve()

    def _improve(self) -> None:
        """PPO's passes over the latest episodes."""
        actions_BT = torch.tensor([each for each, _, _ in self.latest])
        gain, old = torch.tensor([each for _, *each in self.latest]).T
        gain = (gain - gain.mean()) / (gain.std() + 1e-6)
        for _ in range(PASSES):
            with torch.enable_grad():
                log_B, entropy = self.log_probabilities(actions_BT)
                rho = (log_B - old).exp()
                clipped = rho.clamp(1 - CLIP, 1 + CLIP)
                self._descend(-torch.minimum(rho * gain, clipped * gain).mean(), entropy)

    def _descend(self, loss: Tensor, entropy: Tensor) -> None:
        beta = ENTROPY * max(0.0, 1 - self.trials / self.budget)
        self.optimiser.zero_grad()
        (loss - beta * entropy).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.writer.parameters(), 1.0)
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """All that it has learnt."""
        plain = {"baseline": self.baseline, "trials": self.trials, "latest": self.latest}
        return {**plain, "writer": self.writer.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from there."""
        self.baseline, self.trials, self.latest = state["baseline"], state["trials"], list(state["latest"])
        self.writer.load_state_dict(state["writer"])
        self.optimiser.load_state_dict(state["optimiser"])


def _learn(policy: Policy, trial: Trial, reward: float) -> None:
    policy.learn(trial.proposal.architecture, reward)


def policy_gradient(
    objectives: Sequence[str],
    *,
    budget: int = 100,
    method: Method = "reinforce",
    controller: Controller = "recurrent",
) -> Strategy:
    """Architectures drawn from a controller that is trained on the trials so far; rewards are ranks from 0 to 1."""
    if budget < 1 or method not in ("reinforce", "ppo") or controller not in ("recurrent", "attention"):
        law = "a policy gradient is reinforce or ppo, with a recurrent or attention controller, and a budget"
        raise BadInput(law, f"{method}, {controller}, {budget}")
    fold = Fold(objectives, lambda space: Policy(space, method, controller, budget), _learn)

    def propose(space: Space, history: Sequence[Trial], n: int, rng: np.random.Generator) -> list[Proposal]:
        policy = fold.state(space, history)
        known: dict[tuple[int, ...], np.ndarray] = {}

        def draw() -> Architecture:
            return policy.episodes.architecture(policy.draw(rng, known))

        return different(history, n, lambda seen: fresh(space, seen, draw, rng))

    return propose
