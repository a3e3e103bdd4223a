"""ResNet-56 on CIFAR-10, fine-tuned first and then made smaller: faster on ONNX Runtime in fp32, three seeds.

The published weights have learnt all training pictures of CIFAR-10 as they were before they became JPEG, so validation
is a fifth of the test file and the holdout the rest: neither the original nor what comes of it has learnt either.
`--work` keeps the fine-tuned weights and the runs; a run that is there is read.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from record import Record, main
from resnet import ResNet, published
from torch import Tensor

import archsmith
from archsmith.errors import BudgetNotReachable
from archsmith.jobs.case import Request, prepared
from archsmith.jobs.optimize import follow
from archsmith.report.result import Result, read_result
from archsmith.report.terminal import Progress
from archsmith.study import RunDirectory
from archsmith.tasks import ImageClassification
from archsmith.tasks.pictures import Preparation
from archsmith.train import Schedule, fit

FASTER, LOST = 2.5, 1.0
EPOCHS, BATCH, RATE = 6, 128, 1e-3
VALIDATION = 1000


def run(record: Record, options: argparse.Namespace) -> None:
    """Times faster on ONNX Runtime fp32, and points lost on the test pictures."""
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        split(record.data / "data" / "cifar10" / "test.parquet", work)
        model = fine_tuned(record, work)
        ratios, drops = [], []
        for seed in options.seeds:
            result = optimise(record, model, work, seed, options.minutes)
            whole, small = (fp32(work / f"seed-{seed}", which) for which in ("originals", "smalls"))
            assert result.holdout is not None
            ratios.append(whole["latency_ms"] / small["latency_ms"])
            drops.append(-result.holdout.difference)
            record.say(f"seed {seed}: accuracy of the original, test", result.holdout.original, "%")
            record.say(f"seed {seed}: points lost", drops[-1], f"of {result.holdout.n} pictures")
            record.say(f"seed {seed}: MACs left", small["macs"] / whole["macs"])
            record.say(f"seed {seed}: ONNX Runtime fp32, times faster", ratios[-1], "x", ratios[-1] >= FASTER)
        record.say("points lost, mean", float(np.mean(drops)), "", float(np.mean(drops)) <= LOST)


def split(file: Path, work: Path) -> None:
    """validation.parquet and holdout.parquet in `work`, out of the test pictures."""
    if (work / "holdout.parquet").exists():
        return
    table = pq.read_table(file)
    order = np.random.default_rng(0).permutation(len(table))
    pq.write_table(table.take(np.sort(order[:VALIDATION])), work / "validation.parquet")
    pq.write_table(table.take(np.sort(order[VALIDATION:])), work / "holdout.parquet")


def task_of(record: Record, work: Path) -> ImageClassification:
    """A fresh task: its holdout is read once."""
    return ImageClassification.from_files(
        record.data / "data" / "cifar10" / "train.parquet",
        work / "validation.parquet",
        work / "holdout.parquet",
        prepared=Preparation(32, 32),
        rng=np.random.default_rng(0),
        argument="x",
    )


def fine_tuned(record: Record, work: Path) -> ResNet:
    """The original of all runs: cross-entropy on pictures moved by up to four pixels and turned left to right."""
    model, kept = published(record.data / "models" / "cifar10-resnet" / "resnet56-4bfd9763.th"), work / "fine-tuned.pt"
    if kept.exists():
        model.load_state_dict(torch.load(kept, weights_only=True))
        return model.eval()
    task, began = task_of(record, work), time.perf_counter()
    generator = torch.Generator().manual_seed(0)

    def loss(rows: list[int]) -> Tensor:
        targets = task.targets("train", rows)
        assert targets is not None
        return task.loss(model(moved(task.inputs("train", rows)["x"], generator)), targets)

    def passes(epoch: int) -> Iterator[list[int]]:
        return task.batches("train", BATCH, np.random.default_rng([0, epoch]))

    fit(model, passes, loss, Schedule(EPOCHS * -(-task.size("train") // BATCH), RATE))
    record.say("fine-tuning", time.perf_counter() - began, "s")
    torch.save(model.state_dict(), kept)
    return model.eval()


def moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each batch shifted by up to four pixels over a reflected edge, and every second picture turned."""
    padded = torch.nn.functional.pad(pictures, (4, 4, 4, 4), mode="reflect")
    down, right = torch.randint(0, 9, (2,), generator=generator).tolist()
    cropped = padded[:, :, down : down + pictures.shape[2], right : right + pictures.shape[3]]
    turned = torch.rand(len(pictures), generator=generator) < 0.5
    return torch.where(turned[:, None, None, None], cropped.flip(3), cropped)


def optimise(record: Record, model: ResNet, work: Path, seed: int, minutes: float) -> Result:
    """One run, or the one that is there, which goes on if it was stopped."""
    out, example = work / f"seed-{seed}", torch.zeros(2, 3, 32, 32)
    if not (out / "result.json").exists():
        began = time.perf_counter()
        with contextlib.suppress(BudgetNotReachable):
            if out.exists():
                with RunDirectory.open(out) as opened:
                    case = prepared(Request.from_json(opened.plan), model, task_of(record, work), example)
                    follow(case, opened, Progress())
            else:
                archsmith.optimize(
                    model,
                    task_of(record, work),
                    targets=[f"drop<={LOST}"],
                    runtime="onnxruntime",
                    minutes=minutes,
                    seed=seed,
                    out=out,
                    example=example,
                )
        record.say(f"seed {seed}: seconds", time.perf_counter() - began, "s")
    return read_result(out)


def fp32(run: Path, which: str) -> dict[str, Any]:
    """ONNX Runtime fp32 of the "originals" or the "smalls", which were timed in one run."""
    rows = json.loads((run / "stages" / "final.json").read_text(encoding="utf-8"))["result"][which]
    return next(row for row in rows if (row["runtime"], row["precision"]) == ("onnxruntime", "fp32"))


if __name__ == "__main__":
    main(
        "vision",
        run,
        ("--minutes", {"type": float, "default": 30.0, "help": "of each run"}),
        ("--seeds", {"type": int, "nargs": "+", "default": [0, 1, 2]}),
        ("--work", {"type": Path, "default": None, "help": "folder for the fine-tuned weights and the runs"}),
    )
