"""A Transformer that reads an architecture as a sequence of tokens and tells how good it is.

Each choice is one token: an embedding of the choice, plus one of its value (Lu et al. 2021, "TNASP", of cells). What is
known beside the choices (features) is one more token. Trained to put pairs in the right order as well as to tell the
value: from some tens of labels, order is what can be learnt (Xu et al. 2021, "ReNAS").

T: tokens; H: hidden; B: rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.search.learners import Learner, Predict
from archsmith.space import Space

HIDDEN, HEADS, DEPTH = 32, 4, 2
MEMBERS, EPOCHS, RATE, DECAY = 2, 50, 6e-3, 1e-2
CHUNK = 1024  # rows that are asked about at once
ORDER = 1.0  # weight of the order of pairs beside the values


class Reader(nn.Module):
    """Encoded rows (B, D) -> predicted scores (B,)."""

    def __init__(self, widths: list[int], features: int) -> None:
        super().__init__()
        self.widths = widths
        self.values = nn.ModuleList([nn.Linear(width, HIDDEN) for width in [*widths, *[features] * (features > 0)]])
        self.place = nn.Parameter(0.1 * torch.randn(len(self.values) + 1, HIDDEN))
        layer = nn.TransformerEncoderLayer(HIDDEN, HEADS, 2 * HIDDEN, dropout=0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, 1))

    def forward(self, x_BD: Tensor) -> Tensor:
        """What is read at the first token, which stands for all."""
        sizes = [*self.widths, *[x_BD.shape[1] - sum(self.widths)] * (len(self.values) > len(self.widths))]
        parts = torch.functional.split(x_BD, sizes, 1)
        tokens = [embed(part) for embed, part in zip(self.values, parts, strict=True)]
        h_BTH = torch.stack([torch.zeros_like(tokens[0]), *tokens], 1) + self.place
        out: Tensor = self.head(self.body(h_BTH)[:, 0])[:, 0]
        return out


def transformer_ensemble(space: Space) -> Learner:
    """The learner for one space: `MEMBERS` readers from other beginnings."""
    widths = [1 if choice.ordinal else len(choice.values) for choice in space.choices.values()]

    def learn(x: np.ndarray, z: np.ndarray, seed: int) -> Predict:
        centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
        centre[: sum(widths)], scale[: sum(widths)] = 0.0, 1.0
        rows, goal = torch.from_numpy((x - centre) / scale).float(), torch.from_numpy(z).float()
        members = []
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.default_generator.manual_seed(seed)
            for _ in range(MEMBERS):
                members.append(_trained(Reader(widths, x.shape[1] - sum(widths)), rows, goal))

        def predict(asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                parts = torch.split(torch.from_numpy((asked - centre) / scale).float(), CHUNK)
                told = torch.stack([torch.cat([member(part) for part in parts]) for member in members]).double().numpy()
            return told.mean(axis=0), told.std(axis=0) + 1e-6

        return predict

    return learn


def _trained(reader: Reader, rows: Tensor, goal: Tensor) -> Reader:
    optimiser = torch.optim.AdamW(reader.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS)
    apart = goal[:, None] - goal[None]
    for _ in range(EPOCHS):
        told = reader(rows)
        # Of each pair, the probability that the model puts it right (RankNet, Burges et al. 2005).
        pairs = nn.functional.softplus(-(told[:, None] - told[None]) * apart.sign() * 2)[apart != 0]
        loss = nn.functional.smooth_l1_loss(told, goal) + ORDER * (pairs.mean() if pairs.numel() else 0.0)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return reader.eval()
