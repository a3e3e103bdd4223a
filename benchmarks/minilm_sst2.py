"""Speed at quality: MiniLM on SST-2 with `--target "drop<=1.0"`, one thread, batch 1, 128 real tokens.

One run a seed, each in a fresh folder. What decides is measured by the runs themselves: latencies of one interleaved
timing, quality on dev.tsv, which is read once a run. Beside that, in one more interleaved timing of the first seed's
files: fixed length, batch 32, natural lengths, and ONNX Runtime alone.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from record import Record, main

import archsmith
from archsmith.cost import OpenVINO, arrays, sample_times
from archsmith.cost.cpu import lacks_bf16
from archsmith.errors import BudgetNotReachable
from archsmith.jobs.case import Case, Request, prepare
from archsmith.jobs.serving import Served, reopened, time_all
from archsmith.report.result import read_result
from archsmith.space import JSON
from archsmith.study import RunDirectory

FASTER, SAME_SETTING, DROP, LONGEST = 14.0, 3.4, 1.0, 2100


def run(record: Record, options: argparse.Namespace) -> None:
    """MiniLM on SST-2: how much faster at no more than one point lost on the holdout."""
    if reason := lacks_bf16():
        record.say("bf16", reason)
    speedups, same, drops = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            folder = (options.out or Path(scratch)) / f"seed-{seed}"
            try:
                result = archsmith.optimize(
                    str(record.data / "models" / "minilm-sst2"),
                    "text-classification",
                    data=str(record.data / "data" / "sst2" / "train.tsv"),
                    holdout=str(record.data / "data" / "sst2" / "dev.tsv"),
                    targets=["drop<=1.0"],
                    minutes=options.minutes,
                    seed=seed,
                    out=folder,
                )
            except BudgetNotReachable:
                result = read_result(folder)
            best, holdout = result.best, result.holdout
            assert holdout is not None and result.speedup is not None and best.latency_ms
            alike = next(
                v for v in originals(folder) if (v["runtime"], v["precision"]) == (best.runtime, best.precision)
            )
            speedups.append(result.speedup)
            same.append(alike["latency_ms"] / best.latency_ms)
            drops.append(-holdout.difference)
            record.say(f"seed {seed}: faster than PyTorch fp32", result.speedup, "x")
            record.say(f"seed {seed}: faster than the original on {best.runtime} {best.precision}", same[-1], "x")
            record.say(f"seed {seed}: drop on the holdout", drops[-1], "points")
            record.say(f"seed {seed}: its 95 % interval", [-holdout.interval[1], -holdout.interval[0]], "points")
            seconds = sum(result.seconds.values())
            record.say(f"seed {seed}: seconds", seconds, "s", seconds <= LONGEST)
            record.say(f"seed {seed}: architecture", describe(dict(result.architecture)))
            if seed == 0:
                also(record, folder)
    record.say("faster than the original, same setting (least of the seeds)", min(same), "x", min(same) >= SAME_SETTING)
    record.say("drop, mean of the seeds", float(np.mean(drops)), "points", float(np.mean(drops)) <= DROP)
    record.say("faster than PyTorch fp32 (least of the seeds)", min(speedups), "x", min(speedups) >= FASTER)


def describe(architecture: dict[str, JSON]) -> str:
    """What was kept, one short name a value."""
    kept = {name.replace("bert.encoder.layer.", "").replace("attention.", ""): v for name, v in architecture.items()}
    return ", ".join(f"{name} {value}" for name, value in kept.items() if value is not True)


def originals(folder: Path) -> list[JSON]:
    """The original's variants in the last timing of a run."""
    with RunDirectory.open(folder) as opened:
        rows: list[JSON] = opened.stage("final", lambda _: None)["originals"]
    return rows


def also(record: Record, folder: Path) -> None:
    """Other shapes, timed on the same files: original PyTorch fp32 against the small network."""
    with RunDirectory.open(folder) as opened:
        case = prepare(Request.from_json(opened.plan))
        whole = case.task.wrap(case.model).eval()
        before = opened.stage("original", lambda _: None)["files"]
        after = opened.stage("model", lambda _: None)["files"]
        wholes = reopened(case, opened.folder("original"), before[:1], "original", whole)
        smalls = [
            each
            for each in reopened(case, opened.folder("model"), after, "smaller", whole)
            if each.artifact.runtime != "pytorch"
        ]
        rows = np.random.default_rng(0).permutation(case.task.size("validation"))[:1]
        natural = case.task.inputs("validation", [int(row) for row in rows])
        shapes = {"batch 1 x 128": case.example(), "batch 32 x 128": case.task.example(32, 128), "natural": natural}
        for shape, inputs in shapes.items():
            times = time_all(case, [*wholes, *smalls], inputs, 20.0)
            for each in smalls:
                faster = np.median(times[wholes[0].name] / times[each.name])
                record.say(f"{shape}: {each.name.removeprefix('smaller ')}", float(faster), "x PyTorch fp32")
        fixed_length(record, case, wholes[0], smalls)


def fixed_length(record: Record, case: Case, whole: Served, smalls: list[Served]) -> None:
    """The OpenVINO fp32 file compiled for the example's shape."""
    small = next((s for s in smalls if s.artifact.runtime == "openvino" and s.artifact.precision == "fp32"), None)
    if small is None:
        return
    shape = (case.request.batch, case.request.length)
    session = OpenVINO().open(replace(small.artifact, fixed=shape), case.request.threads)
    ready = arrays(case.example())
    calls = {"whole": lambda: whole.session(ready), "fixed": lambda: session(ready)}
    times = sample_times(calls, 60, 3, np.random.default_rng(0), 20.0)
    record.say("fixed length: openvino fp32", float(np.median(times["whole"] / times["fixed"])), "x PyTorch fp32")


if __name__ == "__main__":
    main(
        "minilm_sst2",
        run,
        ("--seeds", {"type": int, "default": 3}),
        ("--minutes", {"type": float, "default": 20.0}),
        ("--out", {"type": Path, "default": None, "help": "keep the runs here"}),
    )
