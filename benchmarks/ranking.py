"""Shared weights on NAS-Bench-201: how one supernet, trained by single paths, orders cells that it never trained alone.

Of several networks drawn for a step, the one with most weights is trained, on CIFAR-10 for so many minutes; then, for
each of some draws of 100 random cells, Kendall's tau of the weights' order with the table's CIFAR-10 test accuracy,
beside that of the parameter count on the same cells. `--first` moves the draws to other cells: settings are chosen on
those (100 and on), not on the cells that count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from record import Record, main
from scipy.stats import kendalltau

from archsmith.build.spaces.nasbench201 import nasbench201
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.trained import validation_loss, validation_risk
from archsmith.evaluate.weight_shared import Shared, WeightShared, calibration_of, train_shared
from archsmith.jobs.ground import TASKS, Scratch
from archsmith.jobs.pacing import recipe_of
from archsmith.space import Architecture

EDGES = ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3")
CELLS, PACING = 100, 40
MEASURES = ("by accuracy", "by cross-entropy")
LEAST, ABOVE = 0.5, 0.05  # Kendall's tau; and over that of the parameter count


def run(record: Record, options: argparse.Namespace) -> None:
    """Kendall's tau with the table, mean of the draws."""
    torch.set_num_threads(options.threads)
    folder = record.data / "data" / "cifar10"
    scratch = Scratch(
        "image-classification", str(folder / "train.parquet"), "nb201", holdout=str(folder / "test.parquet")
    )
    ground = Ground.of(TASKS["image-classification"](scratch)).at(options.resolution)
    blueprint = nasbench201(options.channels, options.cells)
    recipe = replace(recipe_of(ground), batch=options.batch, learning_rate=options.rate, smoothing=options.smoothing)
    paths = {"paths": options.paths, "heaviest_of": options.heaviest_of}
    began = time.perf_counter()
    train_shared(Shared(ground, blueprint, options.seed), replace(recipe, steps=PACING), **paths)
    step = (time.perf_counter() - began) / PACING  # with what comes once, so that the minutes are kept
    steps = round(options.minutes * 60 / step)
    shared = Shared(ground, blueprint, options.seed)
    fitted = train_shared(shared, replace(recipe, steps=steps), **paths)
    minutes = (time.perf_counter() - began) / 60
    reduced = f"{options.channels}; {options.cells}; {'x'.join(map(str, ground.signal.around))}; {options.batch}"
    record.say("channels; cells a stage; pictures; batch", reduced)
    record.say("heaviest of; threads", f"{options.heaviest_of}; {options.threads}")
    record.say("train rows; steps", f"{ground.task.size('train'):,}; {fitted.steps:,}")
    record.say("training", minutes, "minutes", minutes <= 60)
    table = np.load(record.data / "data" / "nb201" / "nb201.npz")
    evaluate = WeightShared(shared, calibration_of(ground, options.batch))
    found: list[tuple[float, float, float]] = []
    began = time.perf_counter()
    for draw in range(options.first, options.first + options.draws):
        rows = np.random.default_rng(draw).choice(len(table["ops"]), CELLS, replace=False)
        accuracy = table["cifar10_test200"][rows]
        lost = -np.array([judged(evaluate, point(table, row)) for row in rows]).T  # by each of MEASURES
        kendall = [float(kendalltau(by, accuracy).statistic) for by in (*lost, table["cifar10_params"][rows])]
        found.append((kendall[0], kendall[1], kendall[2]))
        names = "; ".join((*MEASURES, "of the parameter count"))
        record.say(f"draw {draw}: Kendall {names}", "; ".join(f"{each:.3f}" for each in kendall))
    record.say("a cell's evaluation", (time.perf_counter() - began) / (CELLS * options.draws), "s")
    *ours, count = np.mean(found, axis=0).tolist()
    record.say("Kendall of the parameter count, mean", count)
    for measure, each in zip(MEASURES, ours, strict=True):
        counts = measure == options.by
        record.say(f"Kendall {measure}, mean", each, "", each >= max(LEAST, count + ABOVE) if counts else None)


def judged(evaluate: WeightShared, cell: Architecture) -> tuple[float, float]:
    """Points lost on validation, and the mean cross-entropy there."""
    wrapped, task = evaluate.network(cell)[1], evaluate.shared.ground.task
    return validation_loss(wrapped, task), validation_risk(wrapped, task)


def point(table: dict[str, np.ndarray], row: int) -> Architecture:
    """Edge -> operator of one row of the table."""
    return Architecture({edge: str(table["op_names"][op]) for edge, op in zip(EDGES, table["ops"][row], strict=True)})


if __name__ == "__main__":
    main(
        "ranking",
        run,
        ("--minutes", {"type": float, "default": 30.0}),
        ("--channels", {"type": int, "default": 16}),
        ("--resolution", {"type": float, "default": 0.5}),
        ("--cells", {"type": int, "default": 1}),
        ("--batch", {"type": int, "default": 64}),
        ("--rate", {"type": float, "default": 2e-3}),
        ("--smoothing", {"type": float, "default": 0.1}),
        ("--paths", {"type": int, "default": 1}),
        ("--heaviest-of", {"type": int, "default": 8}),
        ("--threads", {"type": int, "default": 1}),
        ("--by", {"choices": MEASURES, "default": MEASURES[0]}),
        ("--draws", {"type": int, "default": 5}),
        ("--first", {"type": int, "default": 0}),
        ("--seed", {"type": int, "default": 0}),
    )
