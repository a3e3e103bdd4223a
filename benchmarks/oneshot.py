"""One-shot methods on NAS-Bench-201: what each finds after as many minutes, by the table's CIFAR-10 test accuracy.

Each trains its shared weights on CIFAR-10 at half its sides, with one cell a stage. `settled`: the cell that its own
strengths or controller come down to. `judged`: the best on validation, by the weights, of those that it would try first
and of random ones. Mean over seeds; the mean over all cells is what one at random has.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from ranking import EDGES
from record import Record, main

from archsmith.build.spaces.nasbench201 import nasbench201
from archsmith.evaluate.from_scratch import Ground
from archsmith.evaluate.weight_shared import Shared, WeightShared, calibration_of
from archsmith.jobs.bench import parsed
from archsmith.jobs.ground import TASKS, Scratch
from archsmith.jobs.oneshot import Learnt, Lesson, different, method_of
from archsmith.jobs.pacing import recipe_of
from archsmith.space import Architecture
from archsmith.train.recipe import Recipe
from archsmith.trial import Proposal

METHODS = ("spos", "spos:heaviest_of=8", "sandwich", "enas", "darts", "darts:second_order=true", "gdas", "p-darts")
PACING, FIRST = 12, 10  # steps that a method is timed over, cells that it would try first


def run(record: Record, options: argparse.Namespace) -> None:
    """Test accuracy of what each method finds."""
    torch.set_num_threads(options.threads)
    folder = record.data / "data" / "cifar10"
    scratch = Scratch(
        "image-classification", str(folder / "train.parquet"), "nb201", holdout=str(folder / "test.parquet")
    )
    ground = Ground.of(TASKS["image-classification"](scratch)).at(0.5)
    table = np.load(record.data / "data" / "nb201" / "nb201.npz")
    names = [str(name) for name in table["op_names"]]
    accuracy = dict(zip(map(tuple, table["ops"].tolist()), table["cifar10_test200"].tolist(), strict=True))
    record.say("minutes; seeds; judged cells", f"{options.minutes:g}; {options.seeds}; {options.judged}")
    record.say("a cell at random", float(np.mean(table["cifar10_test200"])), "%")
    record.say("the best cell", float(np.max(table["cifar10_test200"])), "%")

    def of(cell: Architecture) -> float:
        return float(accuracy[tuple(names.index(str(cell[edge])) for edge in EDGES)])

    for word in options.methods:
        found: list[tuple[float, float]] = []
        for seed in range(options.seeds):
            learnt, steps = learn(word, ground, options.minutes, seed)
            first = different(learnt.first, FIRST)
            rng = np.random.default_rng([seed, 5])
            cells = list(dict.fromkeys([*first, *(learnt.shared.drawn(rng)[0] for _ in range(options.judged))]))
            judge = WeightShared(learnt.shared, calibration_of(ground, recipe_of(ground).batch))
            lost = [judge(Proposal(cell), np.random.default_rng(0))["loss_points"] for cell in cells]
            found.append((of(first[0]) if first else np.nan, of(cells[int(np.argmin(lost))])))
        settled, judged = np.mean(found, axis=0).tolist()
        record.say(f"{word}: steps, last seed", steps)
        if np.isfinite(settled):
            record.say(f"{word}: settled", settled, "%")
        record.say(f"{word}: judged", judged, "%")


def learn(word: str, ground: Ground, minutes: float, seed: int) -> tuple[Learnt, int]:
    """Train by a method, in the steps that the minutes have room for."""
    method = method_of(*parsed(word))
    assert method is not None
    recipe = replace(recipe_of(ground), batch=64, smoothing=0.1)
    make: Callable[..., Shared] = partial(shared_of, ground, seed)
    took = []
    for steps in (PACING, 3 * PACING):
        began = time.perf_counter()
        method(Lesson(make, replace(recipe, steps=steps)))
        took.append(time.perf_counter() - began)
    step = max(1e-3, (took[1] - took[0]) / (2 * PACING))
    settled: Recipe = replace(recipe, steps=round(60 * minutes / step))
    return method(Lesson(make, settled)), settled.steps


def shared_of(ground: Ground, seed: int, depth: float, kind: type[Shared] = Shared) -> Shared:
    """New weights; a network of one cell a stage has no less depth."""
    return kind(ground, nasbench201(16, 1), seed)


if __name__ == "__main__":
    main(
        "oneshot",
        run,
        ("--methods", {"nargs": "+", "default": list(METHODS)}),
        ("--minutes", {"type": float, "default": 2.0}),
        ("--seeds", {"type": int, "default": 2}),
        ("--judged", {"type": int, "default": 40}),
        ("--threads", {"type": int, "default": 1}),
    )
