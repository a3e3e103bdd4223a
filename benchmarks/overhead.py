"""What archsmith itself costs: trace and certify, a sub-network through views, the peak memory of `optimize`."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from record import Record, main

from archsmith.cost import pinned, ratio, sample_times
from archsmith.model import derive_space, examine, realise, view
from archsmith.model.load import load

TRACE_SECONDS, VIEW_RATIO, PEAK = 15.0, 1.1, 3 * 2**30


def run(record: Record, options: argparse.Namespace) -> None:
    """MiniLM: seconds of examine, views against the cut network, peak memory of a whole run."""
    source = record.data / "models" / "minilm-sst2"
    model = load(str(source)).model
    ids = torch.randint(1000, 20000, (2, 16), generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    anatomy = examine(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, np.random.default_rng(0))
    seconds = time.perf_counter() - began
    record.say("certificates accepted", sum(c.accepted for c in anatomy.certificates))
    record.say("trace and certify", seconds, "s", seconds <= TRACE_SECONDS)

    widths = {
        name: axis.size // 2
        for name, axis in anatomy.axes.items()
        if axis.kind in ("heads", "ffn") and name in derive_space(anatomy).choices
    }
    one = torch.randint(1000, 20000, (1, 128), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": one, "attention_mask": torch.ones_like(one)}
    small, through = realise(model, anatomy, widths).eval(), view(model, anatomy, widths)

    def calling(function: Callable[..., object]) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return function(**inputs)

        return call

    with pinned(1):
        times = sample_times({"cut": calling(small), "view": calling(through)}, 60, 5, np.random.default_rng(0), 30.0)
    found = ratio(times["view"], times["cut"])
    record.say(
        "views over the cut network",
        found.median,
        f"x ({found.low:.3f} to {found.high:.3f})",
        found.median <= VIEW_RATIO,
    )

    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "archsmith",
            "optimize",
            str(source),
            "--task",
            "text-classification",
            "--quiet",
        ]
        command += ["--data", str(record.data / "data" / "sst2" / "train.tsv"), "--target", "drop<=1.0"]
        command += ["--minutes", str(options.minutes), "--out", str(Path(scratch) / "run")]
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    record.say("optimize: exit code", code, "", code in (0, 3))
    record.say("optimize: peak memory", peak / 2**30, "GiB", peak <= PEAK)


if __name__ == "__main__":
    main("overhead", run, ("--minutes", {"type": float, "default": 8.0}))
