"""What several tests of evaluators stand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archsmith.build import Declared
from archsmith.evaluate.from_scratch import Ground
from archsmith.tasks import ImageClassification
from archsmith.tasks.pictures import Preparation


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Stripes along or across: nothing without a wide kernel tells them apart."""
    rng = np.random.default_rng(0)
    labels, phase = rng.integers(0, 2, 500), rng.integers(0, 4, 500)
    wave = 100 + 60 * np.sin((np.arange(8)[None] + phase[:, None]) * np.pi / 2)
    x = np.where(labels[:, None, None] == 0, wave[:, :, None], wave[:, None, :])[..., None]
    file: Path = tmp_path_factory.mktemp("stripes") / "data.npz"
    pictures = (x + rng.normal(0, 20, (500, 8, 8, 3))).clip(0, 255).astype(np.uint8)
    np.savez(file, image=pictures, label=labels)
    prepared = Preparation(8, 8, (0.5,) * 3, (0.25,) * 3)
    return Ground.of(ImageClassification.from_files(file, prepared=prepared, rng=rng, argument="x"))


@pytest.fixture(scope="module")
def wide(ground: Ground) -> Declared:
    """Two layers, of which one must be wide for the stripes to be seen."""
    ops = {"wide": {"conv": {"out": "in"}}, "point": {"conv": {"out": "in", "kernel": 1}}, "skip": "skip"}
    layer = {"repeat": 2, "name": "layer", "of": [{"pick": "$op", "of": ops}, "batch_norm", "relu"]}
    network = [{"conv": {"out": 8, "kernel": 1}}, "batch_norm", layer, "mean", {"linear": {"out": "$classes"}}]
    return Declared({"op": list(ops)}, network)
