"""The matrix: every model type of the installed transformers and the zoo's graphs, traced, certified, cut, saved, loaded
and exported; a row each.

A type is certified end to end where at least one axis is accepted, a cut of all axes at once runs and computes what the
certificate's reference computes, and what is saved, loaded and exported computes what the cut model computes. Every row
runs in a process of its own, with a limit of time: one that hangs or dies is a row that says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
import zoo_tokens  # noqa: F401  (its graphs enter the zoo)
from record import Record, main
from torch import Tensor, nn
from zoo import ZOO

from archsmith.cost import RUNTIMES, arrays
from archsmith.errors import BadInput
from archsmith.model import Anatomy, cut, examine, plan
from archsmith.model.load import Loaded
from archsmith.model.pretrained import load_saved
from archsmith.model.running import deviation, main_outputs, run as outputs_of
from archsmith.model.save import load_exported, save

SAME = 1e-4  # of the output's scale
SECONDS = 240  # of one row
MUST_TYPES = 300
# Much used families, each of which must pass.
FAMILIES = (
    "bert roberta distilbert albert electra deberta-v2 mpnet xlm-roberta modernbert camembert ernie layoutlm roformer "
    "gpt2 gpt_neo gpt_neox gptj opt bloom falcon llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma gemma2 "
    "gemma3_text phi phi3 olmo2 stablelm smollm3 starcoder2 mamba mamba2 t5 bart marian pegasus vit deit beit dinov2 "
    "swin convnext resnet regnet mobilenet_v2 segformer detr clip siglip wav2vec2 hubert whisper"
).split()


def run(record: Record, options: argparse.Namespace) -> None:
    """What can be changed in every model type of transformers, and in the zoo."""
    names = options.only or [*(f"zoo: {name}" for name in ZOO), *(options.types or tiny.model_types())]
    rows = matrix(names, options.workers, options.export)
    types = [row for row in rows if not row["name"].startswith("zoo: ")]
    animals = [row for row in rows if row["name"].startswith("zoo: ")]
    (options.out or Path("/dev/null")).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    for row in rows:
        record.say(row["name"], line(row))
    wrong = [row["name"] for row in animals if row["found"] != row.get("free")]
    record.say("graphs of the zoo whose free widths were not found as they are", wrong, "", not wrong)
    false = [row["name"] for row in rows if row.get("false")]
    record.say("false acceptances", false, "", not false)
    passed = [row["name"] for row in types if row["passed"]]
    missing = [name for name in FAMILIES if name in names and name not in passed]
    record.say("much used families that do not pass", missing, "", not missing)
    record.say("model types certified end to end", len(passed), f"of {len(types)}", len(passed) >= MUST_TYPES)


def matrix(names: Sequence[str], workers: int, export: bool) -> list[dict[str, Any]]:
    """A row each, in the order of the names."""
    context = multiprocessing.get_context("fork")
    waiting, running, done = list(names), {}, {}
    while waiting or running:
        while waiting and len(running) < workers:
            name = waiting.pop(0)
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(name, export, there), daemon=True)
            process.start()
            there.close()
            running[name] = (process, here, time.monotonic())
        for name, (process, here, began) in list(running.items()):
            late = time.monotonic() - began > SECONDS
            if here.poll(0.05):
                try:
                    done[name] = here.recv()
                except EOFError:
                    done[name] = failed(name, "its process died")
            elif late:
                process.kill()
                done[name] = failed(name, f"it takes more than {SECONDS} s")
            else:
                continue
            process.join()
            here.close()
            del running[name]
    return [done[name] for name in names]


def work(name: str, export: bool, pipe: Any) -> None:
    """In the child: one row, through the pipe."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        row = one(name, export)
    except Exception as error:  # whatever a model may raise is what the row is about
        row = failed(name, f"{type(error).__name__}: {str(error)[:600]}")
    pipe.send({**row, "seconds": round(time.perf_counter() - began, 1)})


def failed(name: str, reason: str) -> dict[str, Any]:
    """The row of what gave none."""
    return {"name": name, "passed": False, "problem": reason, "found": None}


def one(name: str, export: bool) -> dict[str, Any]:
    """Build, examine, cut, save, load, export; one row."""
    animal = ZOO.get(name.removeprefix("zoo: ")) if name.startswith("zoo: ") else None
    if animal is not None:
        torch.manual_seed(0)
        model, inputs = animal.make(), dict(animal.inputs)
    else:
        try:
            model, inputs = tiny.build(name)
        except RuntimeError as error:
            return failed(name, f"not built here: {str(error)[:1500]}") | {"built": False}
    row: dict[str, Any] = {
        "name": name,
        "class": type(model).__name__,
        "inputs": {k: list(v.shape) for k, v in inputs.items()},
    }
    anatomy = examine(model, inputs, np.random.default_rng(0))
    sizes: dict[str, list[int]] = {}
    for axis in anatomy.axes.values():
        sizes.setdefault(axis.kind, []).append(axis.size)
    row["found"] = " ".join(f"{kind} {' '.join(map(str, sorted(sizes[kind])))}" for kind in sorted(sizes))
    row["axes"] = dict(Counter(axis.kind for axis in anatomy.axes.values()))
    row["branches"] = dict(Counter(branch.kind for branch in anatomy.branches.values()))
    row["unknown"] = dict(anatomy.unknown_operators)
    row["rejected"] = {c.subject: c.reason for c in anatomy.certificates if not c.accepted}
    row["share"] = round(share(model, anatomy), 1)
    if animal is not None:
        row["free"] = animal.free and " ".join(sorted_free(animal.free))
    if not anatomy.axes:
        return row | {"passed": False, "problem": "no axis is certified"}
    return row | tried(model, inputs, anatomy, export)


def sorted_free(text: str) -> list[str]:
    """Kinds in order, their sizes in order, as `found` has them."""
    kinds: dict[str, list[int]] = {}
    for word in text.split():
        if word.isdigit():
            kinds[last].append(int(word))  # noqa: F821
        else:
            kinds[last := word] = []  # noqa: F841
    return [part for kind in sorted(kinds) for part in (kind, *map(str, sorted(kinds[kind])))]


def tried(model: nn.Module, inputs: Mapping[str, Tensor], anatomy: Anatomy, export: bool) -> dict[str, Any]:
    """Half of every axis cut at once: does it run, come back from the disk, and export as the same?"""
    rng = np.random.default_rng(1)
    keep = {
        name: sorted(map(int, rng.choice(axis.size, max(1, axis.size // 2), replace=False)))
        for name, axis in anatomy.axes.items()
    }
    small = cut(model, plan(anatomy, keep)).eval()
    outputs = outputs_of(small, inputs)
    result: dict[str, Any] = {"cut": True}
    with tempfile.TemporaryDirectory() as scratch:
        loaded = Loaded(model, None, "tiny", "transformers", example=dict(inputs), files={})
        try:
            save(small, loaded, Path(scratch) / "model")
            back = (
                load_exported(Path(scratch) / "model" / "model.pt2", allow_code=True)
                if (Path(scratch) / "model" / "model.pt2").exists()
                else load_saved(Path(scratch) / "model")
            )
            with torch.no_grad():
                result["saved"] = deviation(main_outputs(back(**inputs)), outputs)
        except Exception as error:  # a class may refuse in any way
            return result | {"passed": False, "problem": f"not saved: {type(error).__name__}: {str(error)[:300]}"}
        if export:
            try:
                result["exported"] = exported(small, inputs, Path(scratch) / "onnx", outputs)
            except Exception as error:
                return result | {
                    "passed": False,
                    "problem": f"not exported: {type(error).__name__}: {str(error)[:300]}",
                }
    worst = max(result["saved"], result.get("exported", 0.0))
    return result | {"passed": worst <= SAME, "problem": "" if worst <= SAME else f"differs by {worst:.2g}"}


class First(nn.Module):
    """The first main output of a model, by keyword."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        """One tensor."""
        return main_outputs(self.model(**inputs))[0]


def exported(small: nn.Module, inputs: Mapping[str, Tensor], folder: Path, outputs: list[Tensor]) -> float:
    """Deviation of the ONNX file in ONNX Runtime."""
    runtime = RUNTIMES["onnxruntime"]()
    artifact = runtime.export(First(small), inputs, {}, folder)
    found = runtime.open(artifact, 1)(arrays(inputs))
    return deviation([torch.from_numpy(np.array(found))], outputs[:1])


def share(model: nn.Module, anatomy: Anatomy) -> float:
    """Percent of the parameters that lie in a certified axis or a branch."""
    named = dict(model.named_parameters())
    held = {place.parameter for axis in anatomy.axes.values() for place in axis.places}
    inside = tuple(f"{branch.module}." for branch in anatomy.branches.values())
    total = sum(p.numel() for p in named.values())
    return 100.0 * sum(p.numel() for n, p in named.items() if n in held or n.startswith(inside)) / max(1, total)


def line(row: Mapping[str, Any]) -> str:
    """One row, readable."""
    said = "passes" if row["passed"] else f"no: {row['problem'][:160]}"
    found = f"{row['found']}; {row.get('branches')}; {row.get('share')} %" if row.get("found") is not None else ""
    rejected = "; ".join(f"{s}: {r[:60]}" for s, r in list(row.get("rejected", {}).items())[:3])
    unknown = ", ".join(row.get("unknown", {}))
    return f"{said} | {found} | rejected {len(row.get('rejected', {}))} {rejected} | unknown {unknown} | {row.get('seconds')} s"


if __name__ == "__main__":
    main(
        "coverage",
        run,
        ("--only", {"nargs": "+", "default": None, "help": "these rows"}),
        ("--types", {"nargs": "+", "default": None, "help": "these model types"}),
        ("--workers", {"type": int, "default": 2}),
        ("--export", {"action": argparse.BooleanOptionalAction, "default": True}),
        ("--out", {"type": Path, "default": None, "help": "all rows as JSON"}),
    )
