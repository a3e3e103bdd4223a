"""A small task from nothing: stripes along or across, a space, and the command that searches it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from archsmith.cli import app

SPACE = {
    "choices": {"width": [4, 8], "op": ["conv", "separable"], "depth": [1, 2]},
    "network": [
        {"conv": {"out": "$width", "kernel": 3}},
        "batch_norm",
        "relu",
        {"repeat": "$depth", "of": [
            {"pick": "$op", "of": {"conv": {"conv": {"out": "in"}}, "separable": {"separable": {"out": "in"}}}},
            "batch_norm", "relu"]},
        "mean",
        {"linear": {"out": "$classes"}},
    ],
}  # fmt: skip


def write_stripes(folder: Path) -> Path:
    """`data.npz` and `space.json`."""
    rng = np.random.default_rng(0)
    labels, phase = rng.integers(0, 2, 600), rng.integers(0, 4, 600)
    wave = 100 + 60 * np.sin((np.arange(8)[None] + phase[:, None]) * np.pi / 2)
    x = np.where(labels[:, None, None] == 0, wave[:, :, None], wave[:, None, :])[..., None]
    (folder / "space.json").write_text(json.dumps(SPACE))
    np.savez(
        folder / "data.npz", image=(x + rng.normal(0, 20, (600, 8, 8, 3))).clip(0, 255).astype(np.uint8), label=labels
    )
    return folder


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


def asked(folder: Path, out: Path, *more: object) -> tuple[object, ...]:
    task = ("--task", "image-classification", "--data", folder / "data.npz", "--space", folder / "space.json")
    return ("search", *task, "--strategy", "random", "--trials", 3, "--runtime", "pytorch", "--out", out, *more)
