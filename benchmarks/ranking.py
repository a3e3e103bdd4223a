"""Shared weights on NAS-Bench-201: how one supernet, trained by single paths, orders cells that it never trained alone.

Trained on CIFAR-10 for so many minutes; then, for each of some draws of 100 random cells, Kendall's tau of its order
with the table's CIFAR-10 test accuracy, beside that of the parameter count on the same cells. `--first` moves the draws
to other cells: settings are chosen on those, not on the cells that count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from record import Record, main
from scipy.stats import kendalltau, spearmanr

from archsmith.build.spaces.nasbench201 import nasbench201
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.weight_shared import Shared, WeightShared, calibration_of, train_shared
from archsmith.jobs.ground import TASKS, Scratch
from archsmith.jobs.scratch import recipe_of
from archsmith.space import Architecture
from archsmith.trial import Proposal

EDGES = ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3")
CELLS, PACING = 100, 40
LEAST, ABOVE = 0.5, 0.05  # Kendall's tau; and over that of the parameter count


def run(record: Record, options: argparse.Namespace) -> None:
    """Kendall's tau with the table, mean of the draws."""
    torch.set_num_threads(2)
    folder = record.data / "data" / "cifar10"
    scratch = Scratch(
        "image-classification", str(folder / "train.parquet"), "nb201", holdout=str(folder / "test.parquet")
    )
    ground = Ground.of(TASKS["image-classification"](scratch)).at(options.resolution)
    blueprint = nasbench201(options.channels, options.cells)
    recipe = replace(recipe_of(ground), batch=options.batch, learning_rate=options.rate, smoothing=options.smoothing)
    began = time.perf_counter()
    train_shared(Shared(ground, blueprint, options.seed), replace(recipe, steps=PACING), paths=options.paths)
    step = (time.perf_counter() - began) / PACING  # with what comes once, so that the minutes are kept
    steps = round(options.minutes * 60 / step)
    shared = Shared(ground, blueprint, options.seed)
    fitted = train_shared(shared, replace(recipe, steps=steps), paths=options.paths)
    minutes = (time.perf_counter() - began) / 60
    reduced = f"{options.channels}; {options.cells}; {'x'.join(map(str, ground.signal.around))}; {options.batch}"
    record.say("channels; cells a stage; pictures; batch", reduced)
    record.say("train rows; steps", f"{ground.task.size('train'):,}; {fitted.steps:,}")
    record.say("training", minutes, "minutes", minutes <= 60 if options.minutes > 50 else None)
    table = np.load(record.data / "data" / "nb201" / "nb201.npz")
    evaluate = WeightShared(shared, calibration_of(ground, options.batch))
    found: list[tuple[float, float]] = []
    began = time.perf_counter()
    for draw in range(options.first, options.first + options.draws):
        rows = np.random.default_rng(draw).choice(len(table["ops"]), CELLS, replace=False)
        accuracy = table["cifar10_test200"][rows]
        lost = [evaluate(Proposal(point(table, row)), np.random.default_rng(0))["loss_points"] for row in rows]
        ours = float(kendalltau(-np.array(lost), accuracy).statistic)
        count = float(kendalltau(table["cifar10_params"][rows], accuracy).statistic)
        found.append((ours, count))
        record.say(f"draw {draw}: Kendall; of the parameter count", f"{ours:.3f}; {count:.3f}")
        record.say(f"draw {draw}: Spearman", float(spearmanr(-np.array(lost), accuracy).statistic))
    record.say("a cell's evaluation", (time.perf_counter() - began) / (CELLS * options.draws), "s")
    ours, count = np.mean(found, axis=0).tolist()
    record.say("Kendall of the parameter count, mean", count)
    record.say("Kendall, mean", ours, "", ours >= max(LEAST, count + ABOVE))


def point(table: dict[str, np.ndarray], row: int) -> Architecture:
    """Edge -> operator of one row of the table."""
    return Architecture({edge: str(table["op_names"][op]) for edge, op in zip(EDGES, table["ops"][row], strict=True)})


if __name__ == "__main__":
    main(
        "ranking",
        run,
        ("--minutes", {"type": float, "default": 58.0}),
        ("--channels", {"type": int, "default": 16}),
        ("--resolution", {"type": float, "default": 1.0}),
        ("--cells", {"type": int, "default": 5}),
        ("--batch", {"type": int, "default": 64}),
        ("--rate", {"type": float, "default": 2e-3}),
        ("--smoothing", {"type": float, "default": 0.0}),
        ("--paths", {"type": int, "default": 1}),
        ("--draws", {"type": int, "default": 5}),
        ("--first", {"type": int, "default": 0}),
        ("--seed", {"type": int, "default": 0}),
    )
