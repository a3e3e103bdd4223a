"""Models that tell from an architecture's numbers how good it is: what a predictor-guided search asks.

Each is a function (x (N, D), z (N,), seed) -> (x (M, D) -> mean and deviation (M,)); z are normal scores, minimised.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from sklearn import config_context
from sklearn.ensemble import GradientBoostingRegressor
from torch import Tensor

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Learner = Callable[[np.ndarray, np.ndarray, int], Predict]

MEMBERS = 5  # of an ensemble (White et al. 2021)
HIDDEN, EPOCHS, RATE, DECAY = 64, 150, 1e-2, 1e-3
TREES, DEPTH, SHRINKAGE, DRAWN = 120, 3, 0.08, 0.7


def mlp_ensemble(x: np.ndarray, z: np.ndarray, seed: int) -> Predict:
    """Five networks of two hidden layers, from other beginnings, trained side by side (BANANAS, White et al. 2021).

    E: members, N: rows, D: inputs, H: hidden.
    """
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    x_ND = torch.from_numpy((x - centre) / scale).float()
    z_N1 = torch.from_numpy(z).float()[:, None]
    generator = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], HIDDEN, HIDDEN, 1]
    layers = [
        (torch.randn(MEMBERS, a, b, generator=generator) * (2 / a) ** 0.5, torch.zeros(MEMBERS, 1, b))
        for a, b in itertools.pairwise(sizes)
    ]
    parameters = [tensor.requires_grad_() for layer in layers for tensor in layer]
    optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS)

    def forward(rows_ND: Tensor) -> Tensor:
        h_ENH = rows_ND.expand(MEMBERS, *rows_ND.shape)
        for i, (weight, bias) in enumerate(layers):
            h_ENH = torch.baddbmm(bias, h_ENH, weight)
            h_ENH = h_ENH.relu() if i < len(layers) - 1 else h_ENH
        return h_ENH

    with torch.enable_grad():
        for _ in range(EPOCHS):
            loss = torch.nn.functional.smooth_l1_loss(forward(x_ND), z_N1.expand(MEMBERS, -1, -1), reduction="sum")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            optimiser.step()
            schedule.step()

    def predict(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            told = forward(torch.from_numpy((rows - centre) / scale).float())[..., 0].double().numpy()
        return told.mean(axis=0), told.std(axis=0) + 1e-6

    return predict


def boosted_trees(x: np.ndarray, z: np.ndarray, seed: int) -> Predict:
    """Five gradient boosted sets of trees (Friedman 2001), each on other shares of the rows."""
    with config_context(skip_parameter_validation=True):  # of every tree: a third of the time
        members = [
            GradientBoostingRegressor(
                n_estimators=TREES,
                max_depth=DEPTH,
                learning_rate=SHRINKAGE,
                subsample=DRAWN,
                max_features=0.5,
                random_state=seed * MEMBERS + i,
            ).fit(x, z)
            for i in range(MEMBERS)
        ]

    def predict(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        told = np.stack([member.predict(rows) for member in members])
        return told.mean(axis=0), told.std(axis=0) + 1e-6

    return predict
