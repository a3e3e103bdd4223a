"""What seeing inside a model costs: seconds and memory of trace and certify, for MiniLM and a decoder of 135M."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from record import Record, main

from archsmith.model import examine
from archsmith.model.load import load

SECONDS = {"minilm": 10.0, "decoder": 90.0}
PEAK = 2.5  # of the model's bytes, above the process's own
# The shape of SmolLM2-135M (Allal et al. 2025): 134,515,008 parameters with tied embeddings.
DECODER = {"vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
           "num_key_value_heads": 3, "intermediate_size": 1536, "tie_word_embeddings": True}  # fmt: skip


def run(record: Record, options: argparse.Namespace) -> None:
    """Each model in a process of its own: median seconds of three, the peak of the first."""
    if options.child:
        child(options.child, record.data)
        return
    for name, limit in SECONDS.items():
        found = [measured(name, record.data) for _ in range(options.times)]
        seconds = float(np.median([row[0] for row in found]))
        record.say(f"{name}: accepted certificates", int(found[0][2]))
        record.say(f"{name}: peak memory above the process's own", found[0][1], "x the model", found[0][1] <= PEAK)
        record.say(f"{name}: trace and certify", seconds, "s", seconds <= limit)


def measured(name: str, data: Path) -> list[float]:
    """Seconds, peak as a share of the model, accepted certificates."""
    command = [sys.executable, __file__, "--data", str(data), "--child", name]
    return [float(x) for x in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-3:]]


def child(name: str, data: Path) -> None:
    """In a process of its own: print what `measured` reads. The peak counts the model itself, not the libraries."""
    warm_up()
    own = peak()
    if name == "minilm":
        model = load(str(data / "models" / "minilm-sst2")).model
    else:
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER)).eval()
    ids = torch.randint(1000, 20000, (2, 16), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    began = time.perf_counter()
    anatomy = examine(model, inputs, np.random.default_rng(0))
    seconds = time.perf_counter() - began
    print(seconds, (peak() - own) / size, sum(c.accepted for c in anatomy.certificates))


def warm_up() -> None:
    """What the libraries allocate in a first run is the process's own."""
    config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    ids = torch.randint(1, 49, (2, 16))
    examine(transformers.BertModel(config).eval(), {"input_ids": ids}, np.random.default_rng(0))


def peak() -> int:
    """Bytes of memory that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(
        "seeing",
        run,
        ("--child", {"default": "", "help": "measure one model in this process"}),
        ("--times", {"type": int, "default": 3}),
    )
