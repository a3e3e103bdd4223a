"""A Llama of 1.24 billion parameters in bf16 shards: seen, certified, cut, and saved in shards; ranked, repaired and
distilled layer by layer; in how much memory.

The shape is that of Llama-3.2-1B (Meta 2024), the weights are random. Memory is the process's peak above what it held
when its libraries had been imported and used once, over the bytes of the weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from record import Record, main
from seeing import peak, warm_up

from archsmith.compress.local import distil_layers
from archsmith.evaluate.rank import order_units, rank_units
from archsmith.evaluate.trained import Teacher, repaired
from archsmith.model import cut, examine, plan, reorder
from archsmith.model.load import load
from archsmith.model.save import save
from archsmith.tasks import LanguageModelling
from archsmith.tasks.split import SplitReport
from archsmith.train import Schedule

SECONDS, PEAK = 600.0, 2.5
RANKED, CALIBRATED, LENGTH, STEPS = 16, 8, 64, 8  # windows, and their tokens; of local distillation
SHAPE = {"vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
         "num_key_value_heads": 8, "intermediate_size": 8192, "head_dim": 64, "tie_word_embeddings": True}  # fmt: skip


def run(record: Record, options: argparse.Namespace) -> None:
    """Seconds and peak of inspecting, cutting and saving."""
    if options.child:
        {"make": make, "cut": halve, "mend": mend}[options.child](options.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        if not (work / "model").is_dir():
            child("make", work, record.data)
        found = child("cut", work, record.data)
        record.say("parameters", found["parameters"])
        record.say("shards read", found["read"], "", found["read"] > 1)
        record.say("axes and branches certified", found["accepted"])
        record.say("peak memory of inspecting", found["seen"], "x the weights", found["seen"] <= PEAK)
        record.say("shards written", found["written"], "", found["written"] > 1)
        record.say("parameters left", found["left"])
        record.say("loaded and cut and saved and loaded back", found["saving"], "s")
        record.say("peak memory, cut and saved too", found["peak"], "x the weights", found["peak"] <= PEAK)
        record.say("inspect and certify", found["seconds"], "s", found["seconds"] <= SECONDS)
        found = child("mend", work, record.data)
        record.say(f"ranked on {RANKED * LENGTH} tokens", found["ranking"], "s")
        record.say(f"cut, repaired on {CALIBRATED * LENGTH} tokens", found["repairing"], "s")
        record.say(f"distilled, {STEPS} steps a layer", found["distilling"], "s")
        record.say("loss of the layers after it, over that before", found["loss"], "", found["loss"] < 1)
        record.say("peak memory of all three", found["peak"], "x the weights", found["peak"] <= PEAK)


def child(what: str, work: Path, data: Path) -> dict[str, float]:
    """A part in a process of its own: what it prints last, as JSON."""
    command = [sys.executable, __file__, "--data", str(data), "--child", what, "--work", str(work)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()
    found: dict[str, float] = json.loads(lines[-1])
    return found


def make(work: Path) -> None:
    """Write the model in shards of half a gigabyte."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
    model.save_pretrained(work / "model", max_shard_size="500MB")
    print(json.dumps({}))


def halve(work: Path) -> None:
    """Load, examine, keep half of each feed-forward width and drop every fourth layer, save."""
    warm_up()
    own = peak()
    began = time.perf_counter()
    loaded = load(str(work / "model"))
    assert loaded.example is not None
    size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    anatomy = examine(loaded.model, loaded.example, np.random.default_rng(0))
    seconds, seen = time.perf_counter() - began, (peak() - own) / size
    began = time.perf_counter()
    keep = {name: range(axis.size // 2) for name, axis in anatomy.axes.items() if axis.kind == "ffn"}
    layers = [name for name, branch in anatomy.branches.items() if branch.kind == "layer"]
    small = cut(loaded.model, plan(anatomy, keep, layers[3::4]))
    save(small, loaded, work / "small")
    found = {
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "left": sum(p.numel() for p in small.parameters()),
        "read": len(list((work / "model").glob("*.safetensors"))),
        "written": len(list((work / "small").glob("*.safetensors"))),
        "accepted": sum(each.accepted for each in anatomy.certificates),
        "seconds": seconds,
        "saving": time.perf_counter() - began,
        "seen": seen,
        "peak": (peak() - own) / size,
    }
    print(json.dumps(found))


def mend(work: Path) -> None:
    """Load, examine, rank; keep the better half of each feed-forward width and three layers of four; repair, distil."""
    warm_up()
    own = peak()
    loaded = load(str(work / "model"))
    assert loaded.example is not None
    size = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    anatomy = examine(loaded.model, loaded.example, np.random.default_rng(0))
    words = json.loads((work / "model" / "config.json").read_text())["vocab_size"]
    task, rng = random_text(words), np.random.default_rng(1)
    began = time.perf_counter()
    model = reorder(loaded.model, anatomy, order_units(rank_units(loaded.model, anatomy, task, rng, RANKED)))
    ranking = time.perf_counter() - began
    del loaded
    layers = [name for name, branch in anatomy.branches.items() if branch.kind == "layer"]
    architecture: dict[str, Any] = {n: axis.size // 2 for n, axis in anatomy.axes.items() if axis.kind == "ffn"}
    architecture |= dict.fromkeys(layers[3::4], False)
    inputs = [task.inputs("train", range(begin, begin + 4)) for begin in range(0, CALIBRATED, 4)]
    began = time.perf_counter()
    small = repaired(Teacher(model, anatomy, task, calibration=inputs), architecture)
    repairing = time.perf_counter() - began
    began = time.perf_counter()
    whole, part = (list(each.get_submodule("model.layers").children()) for each in (model, small))
    goals = [*(number - 1 for number in range(len(whole)) if number % 4 != 3 and number), len(whole) - 1]
    pairs = [(whole[goal], layer) for goal, layer in zip(goals, part, strict=True)]
    wrapped = (task.wrap(model).eval(), task.wrap(small).eval())
    first, last = (
        sum(distil_layers(*wrapped, pairs, inputs, Schedule(steps * len(pairs), 2e-4))) for steps in (1, STEPS)
    )
    found = {
        "ranking": ranking,
        "repairing": repairing,
        "distilling": time.perf_counter() - began,
        "loss": last / first,
        "peak": (peak() - own) / size,
    }
    print(json.dumps(found))


def random_text(vocabulary: int) -> LanguageModelling:
    """Windows of random tokens: what is measured does not depend on what they say."""
    tokens = np.random.default_rng(2).integers(0, vocabulary, (RANKED + CALIBRATED) * LENGTH)
    starts = np.arange(0, len(tokens), LENGTH)
    tokenizer: Any = None  # nothing is read
    return LanguageModelling({"train": tokens}, {"train": starts}, LENGTH, tokenizer, SplitReport({}))


if __name__ == "__main__":
    main(
        "large",
        run,
        ("--child", {"default": "", "help": "do one part in this process"}),
        ("--work", {"type": Path, "default": None, "help": "folder for the model"}),
    )
