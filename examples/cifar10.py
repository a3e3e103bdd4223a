"""Find a network for small pictures in colour, and compare it with a ResNet-20 (He et al. 2016).

python examples/cifar10.py --data train.parquet --trials 20 --minutes 30
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from archsmith.jobs.asked import Asked
from archsmith.jobs.baseline import baseline, compared
from archsmith.jobs.ground import Scratch
from archsmith.jobs.search import search


def block(width: int, stride: int = 1) -> list[Any]:
    """Two convolutions and what came in."""
    first = [{"conv": {"out": width, "stride": stride}}, "batch_norm", "relu"]
    return [{"residual": [*first, {"conv": {"out": width}}, "batch_norm"]}, "relu"]


def resnet(width: int = 16, blocks: int = 3) -> list[Any]:
    """Three stages of residual blocks, each of half the size and twice the width of the one before."""
    stem = [{"conv": {"out": width}}, "batch_norm", "relu"]
    stages = [block(width * 2**stage, stride=2 if stage and not i else 1) for stage in range(3) for i in range(blocks)]
    return [stem, *stages, "mean", {"linear": {"out": "$classes"}}]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="parquet, .npz or a folder of folders; or a data set's hub name")
    options.add_argument("--space", default="nb201")
    options.add_argument("--trials", type=int, default=20)
    options.add_argument("--minutes", type=float, help="of the search; by passes over the data unless given")
    options.add_argument("--out", default="")
    chosen = options.parse_args()
    out = Path(chosen.out or tempfile.mkdtemp()) / "run"
    task = Scratch("image-classification", chosen.data, chosen.space, runtime="onnxruntime")
    search(out, Asked("spos", chosen.trials, scratch=task, minutes=chosen.minutes))
    print(compared(out, {"ResNet-20": baseline(out, resnet())}))
    print(f"The report is {out}/report.html")


if __name__ == "__main__":
    main()
