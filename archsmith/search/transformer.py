"""A Transformer that reads an architecture as a sequence of tokens and tells how good it is.

Each choice is one token: an embedding of the choice, plus one of its value (Lu et al. 2021, "TNASP", of cells). What is
known beside the choices (features) is one more token. Trained to put pairs in the right order as well as to tell the
value: from some tens of labels, order is what can be learnt (Xu et al. 2021, "ReNAS").

E: members of the ensemble, which are trained side by side; B: rows; T: tokens; H: hidden; A: heads; D: inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.search.learners import Learner, Predict
from archsmith.space import Space

HIDDEN, HEADS, DEPTH = 32, 4, 2
MEMBERS, EPOCHS, RATE, DECAY, DROPPED = 3, 60, 6e-3, 1e-2, 0.1
LARGE = 30.0  # of a score of attention, so that its exponential is a number
CHUNK = 512  # rows that are asked about at once
ORDER = 1.0  # weight of the order of pairs beside the values


class Readers(nn.Module):
    """Encoded rows (B, D) -> scores (E, B), each member's own. `widths`: the columns of each token, in their order."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        tokens, columns = len(widths), sum(widths)

        def drawn(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(MEMBERS, *shape) * scale)

        self.widths = widths
        self.values = drawn(columns, HIDDEN, scale=0.3)  # every column has a vector of its own in its own token
        self.place = drawn(1, tokens + 1, HIDDEN, scale=0.1)
        self.layers = nn.ModuleList([_Layer(drawn) for _ in range(DEPTH)])
        self.head = drawn(HIDDEN, 1, scale=HIDDEN**-0.5)

    def forward(self, x_BD: Tensor) -> Tensor:
        """What is read at the first token, which stands for all."""
        parts = zip(torch.split(x_BD, self.widths, 1), torch.split(self.values, self.widths, 1), strict=True)
        h = torch.stack([torch.matmul(x, vectors) for x, vectors in parts], dim=2)
        h = nn.functional.pad(h, (0, 0, 1, 0)) + self.place
        for number, layer in enumerate(self.layers):
            h = layer(h, last=number == DEPTH - 1)
        h = nn.functional.layer_norm(h[:, :, 0], (HIDDEN,))
        return torch.bmm(h, self.head)[..., 0]


class _Layer(nn.Module):
    """Attention and feed-forward, each behind a norm (E, B, T, H); of the `last` only the first token is asked for."""

    def __init__(self, drawn: Callable[..., nn.Parameter]) -> None:
        super().__init__()
        self.into = drawn(HIDDEN, 3 * HIDDEN, scale=HIDDEN**-0.5)
        self.out = drawn(HIDDEN, HIDDEN, scale=HIDDEN**-0.5)
        self.up = drawn(HIDDEN, 2 * HIDDEN, scale=HIDDEN**-0.5)
        self.down = drawn(2 * HIDDEN, HIDDEN, scale=(2 * HIDDEN) ** -0.5)

    def forward(self, h: Tensor, last: bool) -> Tensor:
        members, rows, tokens, _ = h.shape
        z = _times(nn.functional.layer_norm(h, (HIDDEN,)), self.into)
        q, k, v = z.view(members, rows, tokens, 3, HEADS, HIDDEN // HEADS).permute(3, 0, 1, 4, 2, 5)
        if last:
            h, q = h[:, :, :1], q[:, :, :, :1]
        # A softmax; torch's own takes three times as long over so few tokens. Nothing differs within the bounds.
        weight = (q @ k.transpose(-1, -2) * (HIDDEN // HEADS) ** -0.5).clamp(-LARGE, LARGE).exp()
        read = ((weight @ v) / weight.sum(-1, keepdim=True)).transpose(2, 3).reshape(h.shape)
        h = h + _dropped(_times(read, self.out), self.training)
        z = nn.functional.layer_norm(h, (HIDDEN,))
        return h + _dropped(_times(_times(z, self.up).relu(), self.down), self.training)


def _times(h: Tensor, weight: Tensor) -> Tensor:
    """(E, B, T, H) by each member's own (E, H, K)."""
    return torch.bmm(h.flatten(1, 2), weight).view(*h.shape[:3], -1)


def _dropped(h: Tensor, training: bool) -> Tensor:
    return nn.functional.dropout(h, DROPPED, training)


def transformer_ensemble(space: Space) -> Learner:
    """The learner for one space: `MEMBERS` readers from other beginnings."""
    widths = [1 if choice.ordinal else len(choice.values) for choice in space.choices.values()]

    def learn(x: np.ndarray, z: np.ndarray, seed: int) -> Predict:
        centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
        centre[: sum(widths)], scale[: sum(widths)] = 0.0, 1.0
        rows, goal = torch.from_numpy((x - centre) / scale).float(), torch.from_numpy(z).float()
        features = x.shape[1] - sum(widths)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(seed)
            readers = _trained(Readers([*widths, *[features] * (features > 0)]), rows, goal)

        def predict(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                parts = torch.split(torch.from_numpy((asked - centre) / scale).float(), CHUNK)
                told = torch.cat([readers(part) for part in parts], 1).double().numpy()
            return told.mean(axis=0), told.std(axis=0) + 1e-6

        return predict

    return learn


def _trained(readers: Readers, rows: Tensor, goal: Tensor) -> Readers:
    optimiser = torch.optim.AdamW(readers.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS)
    apart = goal[:, None] - goal[None]
    first, second = torch.nonzero(apart > 0, as_tuple=True)
    for _ in range(EPOCHS):
        told = readers(rows)
        loss = nn.functional.smooth_l1_loss(told, goal.expand_as(told))
        if len(first):
            # Of each pair, the probability that the model puts it right (RankNet, Burges et al. 2005).
            loss = loss + ORDER * nn.functional.softplus(2 * (told[:, second] - told[:, first])).mean()
        optimiser.zero_grad()
        (MEMBERS * loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(readers.parameters(), MEMBERS**0.5)
        optimiser.step()
        schedule.step()
    return readers.eval()
