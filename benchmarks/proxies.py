"""Scores before training on NAS-Bench-201: how they order 1,000 random cells, and how many are scored a second.

Untrained networks of full size, one batch of CIFAR-10 pictures; against the table's CIFAR-10 test accuracy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from record import Record, main
from scipy.stats import kendalltau, spearmanr
from torch import Tensor

from archsmith.build import Signal, known_space, network, planned
from archsmith.evaluate.zero_cost import SCORES, rank_ensemble, zero_cost

EDGES = ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3")
MUST = {"naswot": 0.77, "synflow": 0.70}
# Of all sets of scores the smallest that was among the best on 240 other cells (seed 1).
ENSEMBLE, TOGETHER, A_SECOND = ("jacobian_covariance", "synflow"), 0.80, 20.0


def run(record: Record, options: argparse.Namespace) -> None:
    """Spearman and Kendall of every score with test accuracy, of the ensemble, and cells a second."""
    table = np.load(record.data / "data" / "nb201" / "nb201.npz")
    rows = np.random.default_rng(options.seed).choice(len(table["ops"]), options.cells, replace=False)
    accuracy = table["cifar10_test200"][rows]
    file = record.data / "data" / "cifar10" / "train.parquet"
    names = options.scores or [name for name in SCORES if name not in ("parameters", "macs")]
    context = multiprocessing.get_context("spawn")
    scores: dict[str, list[float]] = {"parameters": table["cifar10_params"][rows].astype(float).tolist()}
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        list(pool.map(ready, [file] * options.workers))
        for together in (ENSEMBLE, *((name,) for name in names)):
            began = time.perf_counter()
            calls = [pool.submit(scored, file, together, cell(table, row), options.rows) for row in rows]
            each_of = [call.result() for call in calls]
            pace = len(rows) / (time.perf_counter() - began)
            scores |= {name: [each[name] for each in each_of] for name in together}
            must = pace >= A_SECOND if together == ENSEMBLE or together[0] in MUST else None
            record.say(f"{', '.join(together)}: cells a second", pace, "", must)
    count = float(spearmanr(scores["parameters"], accuracy).statistic)
    for name, found in scores.items():
        rank = float(spearmanr(np.nan_to_num(found, neginf=-1e30), accuracy).statistic)
        must = rank >= MUST[name] and (name != "naswot" or rank > count) if name in MUST else None
        record.say(f"{name}: Spearman", rank, "", must)
        record.say(f"{name}: Kendall", float(kendalltau(np.nan_to_num(found, neginf=-1e30), accuracy).statistic))
    mean = rank_ensemble({name: scores[name] for name in ENSEMBLE})
    rank = float(spearmanr(mean, accuracy).statistic)
    record.say(f"rank ensemble of {', '.join(ENSEMBLE)}: Spearman", rank, "", rank >= TOGETHER)


def cell(table: dict[str, np.ndarray], row: int) -> dict[str, str]:
    """Edge -> operator of one row of the table."""
    return {edge: str(table["op_names"][op]) for edge, op in zip(EDGES, table["ops"][row], strict=True)}


def scored(file: Path, names: Sequence[str], point: dict[str, str], rows: int) -> dict[str, float]:
    """Scores of one cell's network, made once; what no output needs is left out."""
    x, y = batch(file, rows)
    built = network(planned(known_space("nb201").static(point, {"classes": 10}), Signal((3, 32, 32)), prune=True))
    return zero_cost(built, x, y, names)


def ready(file: Path) -> None:
    """What a process does once."""
    torch.set_num_threads(1)
    batch(file, 2)


@cache
def batch(file: Path, rows: int) -> tuple[Tensor, Tensor]:
    """The first pictures, each channel with mean 0 and deviation 1."""
    table = next(pq.ParquetFile(file).iter_batches(rows))
    pictures = [np.asarray(Image.open(BytesIO(row["bytes"]))) for row in table.column("image").to_pylist()]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
    return x, torch.tensor(table.column("label").to_pylist())


if __name__ == "__main__":
    main(
        "proxies",
        run,
        ("--cells", {"type": int, "default": 1000}),
        ("--rows", {"type": int, "default": 16}),
        ("--seed", {"type": int, "default": 0}),
        ("--workers", {"type": int, "default": 2}),
        ("--scores", {"nargs": "+", "default": None}),
    )
