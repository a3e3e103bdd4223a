"""What each part contributes at the same latency and the same seconds: each is left out or replaced, all else alike.

Quality is on validation (dev.tsv stays sealed): the order of rows says what a part is worth, not what ships.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import Record, main

from archsmith.evaluate.blocks import keeps_a_layer, layer_paths, moved
from archsmith.evaluate.trained import (
    Effort,
    Teacher,
    Trained,
    develop,
    learning_rate,
    repaired,
    validation_loss,
)
from archsmith.jobs import stages
from archsmith.jobs.case import Request, prepare
from archsmith.jobs.plan import BATCH, costs_of, measure_pace
from archsmith.jobs.select import Point, Terrain, at_most, full_point, widest_of
from archsmith.jobs.stages import Work
from archsmith.model import reorder
from archsmith.report.terminal import Progress
from archsmith.search import random_search, regularised_evolution
from archsmith.space import Architecture, Value
from archsmith.study import RunDirectory
from archsmith.study import run as run_study
from archsmith.tasks.answer import answers, calling
from archsmith.trial import Strategy, Trial

SHARE = 0.2  # of the original's latency on the same runtime
ROWS = 20_000  # that the original answers, for every row of the table alike
TRIALS, OBJECTIVES = 16, ("loss_points", "latency_ms")  # of each search without training
REAL = 0.2  # share of them that is real, the rest made of them

SHARES = (1.0, 0.84, 0.67, 0.5, 0.42, 0.34, 0.25, 0.17)  # widths that uniform cuts are tried at, as shares


def run(record: Record, options: argparse.Namespace) -> None:
    """MiniLM on SST-2 at a fifth of the original's latency, each way trained for the same seconds."""
    request = Request(
        model=str(record.data / "models" / "minilm-sst2"),
        task="text-classification",
        data=str(record.data / "data" / "sst2" / "train.tsv"),
        holdout=str(record.data / "data" / "sst2" / "dev.tsv"),
        runtime="openvino",
        minutes=8.0,
        seed=options.seed,
    )
    case = prepare(request)
    with (
        tempfile.TemporaryDirectory() as scratch,
        RunDirectory.create(Path(scratch) / "run", request.to_json()) as opened,
    ):
        work = Work(case, opened, Progress())
        measured = stages.original(work)
        teacher = stages.sort_units(work, stages.examine_model(work))
        terrain = stages.survey(work, teacher, measured)
        points = stages.select(work, teacher, terrain)
        limit = terrain.ms({}) * SHARE
        exact, plain = at_most(points, limit), uniform(terrain, limit)
        assert exact is not None and plain is not None
        chance = random_point(terrain, limit, case.rng(20))
        shuffled = replace(teacher, model=reorder(teacher.model, teacher.anatomy, chance_order(teacher, case.rng(21))))

        free: dict[str, Callable[[], float]] = {
            "exact selection": lambda: loss(teacher, exact.architecture, Effort(), request.seed),
            "uniform cut": lambda: loss(teacher, plain.architecture, Effort(), request.seed),
            "random architecture": lambda: loss(teacher, chance, Effort(), request.seed),
            "exact selection, random ranking": lambda: loss(shuffled, exact.architecture, Effort(), request.seed),
            "exact selection, no repair": lambda: loss(
                replace(teacher, calibration=()), exact.architecture, Effort(), request.seed
            ),
        }
        for name, find in free.items():
            record.say(f"training-free: {name}", 100 - find(), "points")
        start = [point.architecture for point in widest_of(terrain, points) if point.ms <= limit][-4:]
        evolution = regularised_evolution(OBJECTIVES, population=4, sample=3, start=start)
        searches = {"regularised evolution from the exact front": evolution, "random search": random_search()}
        for name, strategy in searches.items():
            trials = search(teacher, terrain, strategy, Path(scratch) / f"{name}.journal", request.seed)
            within = [t.values["loss_points"] for t in trials if t.values["latency_ms"] <= limit]
            record.say(f"training-free, best of {TRIALS} trials: {name}", 100 - min(within, default=100.0), "points")
        taught = with_answers(teacher, case.rng(22), REAL)
        bare = replace(taught, calibration=())
        real = with_answers(teacher, case.rng(22), 1.0)
        # name -> who teaches what, and the share of the steps that is local
        ways: dict[str, tuple[Teacher, Architecture, float]] = {
            "exact selection, repair, global": (taught, exact.architecture, 0.0),
            "local for three tenths, then global": (taught, exact.architecture, 0.3),
            "no repair": (bare, exact.architecture, 0.0),
            "random ranking": (replace(taught, model=shuffled.model), exact.architecture, 0.0),
            "uniform cut": (taught, plain.architecture, 0.0),
            "random architecture": (taught, chance, 0.0),
            "real rows alone": (real, exact.architecture, 0.0),
        }
        pace = measure_pace(case, taught, [dict(exact.architecture), dict(plain.architecture)])
        reached: dict[str, float] = {}
        for name, (who, architecture, local) in ways.items():
            steps = pace.steps(options.seconds, costs_of(case, who, architecture).macs)
            first = int(local * steps)  # a local step runs one layer
            layers = len([path for path in layer_paths(who.anatomy) if moved(who.anatomy, architecture, path)])
            began = time.perf_counter()
            rate = learning_rate(who, repaired(who, architecture))  # as `optimize` takes it
            quality = 100 - loss(who, architecture, Effort(first * layers, steps - first, BATCH, rate), request.seed)
            reached[name] = quality
            record.say(f"{options.seconds:g} s of training: {name}", quality, "points")
            print(f"  ({steps} steps, {time.perf_counter() - began:.0f} s)")
        for variant in measured:
            record.say(f"precision: original on {variant.runtime} {variant.precision}", variant.quality, "points")
            record.say(f"latency: original on {variant.runtime} {variant.precision}", variant.latency_ms, "ms")
        gain = reached["exact selection, repair, global"] - reached["random architecture"]
        record.say("all parts over a random architecture", gain, "points", gain > 0)


def search(teacher: Teacher, terrain: Terrain, strategy: Strategy, store: Path, seed: int) -> list[Trial]:
    """Trials of repaired networks, nothing trained."""
    evaluator = Trained(teacher, Effort(), seed, terrain.ms)
    found = run_study(terrain.space, strategy, evaluator, trials=TRIALS, store=store, seed=seed, objectives=OBJECTIVES)
    return [trial for trial in found if trial.status == "complete"]


def loss(teacher: Teacher, architecture: Mapping[str, Value], effort: Effort, seed: int) -> float:
    """Points lost on validation by an architecture after this effort."""
    small, _ = develop(teacher, architecture, effort, seed)
    return validation_loss(teacher.task.wrap(small).eval(), teacher.task)


def with_answers(teacher: Teacher, rng: np.random.Generator, real: float) -> Teacher:
    """The teacher with its answers to ROWS rows, this share of them real, and a twelfth to learn on layer by layer."""
    kept = int(real * ROWS)
    task = teacher.task.extended(ROWS - kept, rng) if kept < ROWS else teacher.task
    wrapped = task.wrap(teacher.model).eval()
    size = teacher.task.size("train")
    rows = [int(row) for row in np.sort(rng.permutation(size)[:kept])] + list(range(size, task.size("train")))
    found = answers(calling(wrapped), task, "train", rows)
    outputs = np.full((task.size("train"), *found.shape[1:]), np.nan, np.float32)
    outputs[rows] = found
    some = [int(row) for row in rng.permutation(rows)[: ROWS // 12]]
    batches = [some[begin : begin + BATCH] for begin in range(0, len(some), BATCH)]
    return replace(teacher, task=task, outputs=outputs, local=[task.inputs("train", rows) for rows in batches])


def uniform(terrain: Terrain, ms: float) -> Point | None:
    """The layers that matter most, all cut to the same share, as many and as wide as a latency allows.

    Of the shapes that fit, the one whose number of layers and width share are nearest to each other; None where the
    network has no layers or nothing fits.
    """
    layers = [name for name, branch in terrain.anatomy.branches.items() if branch.kind == "layer"]
    layers = [name for name in layers if name in terrain.scores]
    by_score = sorted(layers, key=lambda name: -terrain.scores[name][False])
    inner = [name for name in terrain.space.choices if name in terrain.anatomy.axes]
    inner = [name for name in inner if terrain.anatomy.axes[name].layer in layers]
    fitting: list[tuple[float, Point]] = []
    for kept in range(1, len(layers) + 1):
        for share in SHARES:
            values: dict[str, Value] = {name: name in by_score[:kept] for name in layers}
            for name in inner:
                size = terrain.anatomy.axes[name].size
                options = terrain.space.choices[name].values
                values[name] = min(options, key=lambda value: abs(float(value) - share * size))
            architecture = full_point(terrain.space, values)
            predicted = terrain.ms(architecture)
            if predicted <= ms:
                apart = abs(kept / len(layers) - share)
                score = sum(terrain.scores[name][value] for name, value in architecture.items())
                fitting.append((apart - predicted / ms, Point(architecture, score, predicted)))
                break
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


def random_point(terrain: Terrain, ms: float, rng: np.random.Generator) -> Architecture:
    """Of many architectures drawn at random the one nearest below a latency."""
    drawn = [terrain.space.sample(rng) for _ in range(400)]
    within = [a for a in drawn if keeps_a_layer(terrain.anatomy, a) and terrain.ms(a) <= ms]
    return max(within, key=terrain.ms)


def chance_order(teacher: Teacher, rng: np.random.Generator) -> dict[str, list[int]]:
    """Units of every axis in random order."""
    return {name: [int(u) for u in rng.permutation(axis.size)] for name, axis in teacher.anatomy.axes.items()}


if __name__ == "__main__":
    main(
        "ablation",
        run,
        ("--seed", {"type": int, "default": 0}),
        ("--seconds", {"type": float, "default": 60.0}),
    )
