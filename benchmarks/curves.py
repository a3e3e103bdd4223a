"""Learning curves continued: how near what is foreseen comes to the end, and how it orders networks.

Random networks of a known space on CIFAR-10 at half its sides; beside what was seen last, which needs no model. The
constants of `evaluate/curves.py` were set on other data (digits, and made-up stripes).
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from record import Record, main
from scipy.stats import kendalltau

from archsmith.build import known_space
from archsmith.errors import BadInput
from archsmith.evaluate.curves import extrapolated
from archsmith.evaluate.from_scratch import FromScratch, Ground
from archsmith.jobs.ground import TASKS, Scratch
from archsmith.jobs.pacing import recipe_of

SEEN, CHECKS = (0.25, 0.5, 0.75), 20


def run(record: Record, options: argparse.Namespace) -> None:
    """Mean error and Kendall's tau with the end, of what is foreseen and of what was seen last."""
    torch.set_num_threads(1)
    folder = record.data / "data" / "cifar10"
    scratch = Scratch(
        "image-classification", str(folder / "train.parquet"), options.space, holdout=str(folder / "test.parquet")
    )
    ground = Ground.of(TASKS["image-classification"](scratch)).at(0.5)
    blueprint, rng = known_space(options.space), np.random.default_rng(options.seed)
    recipe = replace(recipe_of(ground), steps=options.steps)
    maker = FromScratch(ground, blueprint, recipe)
    curves: list[np.ndarray] = []
    while len(curves) < options.networks:
        plan = ground.drawn(blueprint, rng)[1]
        try:
            fitted = maker.trained(plan, recipe, checks=CHECKS, ends=lambda seen: False)[1]
        except BadInput:
            continue
        curves.append(np.array([(step / fitted.steps, lost) for step, lost in fitted.validated]))
    final = np.array([curve[-1, 1] for curve in curves])
    record.say("space; networks; steps", f"{options.space}; {len(curves)}; {options.steps}")
    record.say("loss at the end, from and to", f"{final.min():.1f}; {final.max():.1f}", "points")
    for share in SEEN:
        parts = [curve[curve[:, 0] <= share + 1e-9] for curve in curves]
        foreseen = np.array(
            [extrapolated(part[:, 0].tolist(), part[:, 1].tolist(), recipe.warmup).value for part in parts]
        )
        last = np.array([part[-1, 1] for part in parts])
        for name, told in (("foreseen", foreseen), ("seen last", last)):
            record.say(f"{share:.0%} seen, {name}: error", float(np.abs(told - final).mean()), "points")
            record.say(f"{share:.0%} seen, {name}: Kendall", float(kendalltau(told, final).statistic))
        nearer = bool(np.abs(foreseen - final).mean() < np.abs(last - final).mean())
        record.say(f"{share:.0%} seen: nearer than what was seen last", nearer, "", nearer)


if __name__ == "__main__":
    main(
        "curves",
        run,
        ("--space", {"default": "chain"}),
        ("--networks", {"type": int, "default": 24}),
        ("--steps", {"type": int, "default": 400}),
        ("--seed", {"type": int, "default": 0}),
    )
