"""The matrix: every model type of the installed transformers and the zoo's graphs; a row each: traced, certified, cut,
saved, loaded, exported.

A type is certified end to end where at least one axis is accepted, a cut of all axes at once runs and computes what the
certificate's reference computes, and what is saved, loaded and exported computes what the cut model computes. Every row
runs in a process of its own, with a limit of time: one that hangs or dies is a row that says so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers
from examined import SAME, failed, one
from record import Record, main
from zoo import ZOO

SECONDS = 240  # of one row
MUST_TYPES, MUST_STREAMS = 300, 45
# Much used families, each of which must pass.
FAMILIES = (  # noqa: SIM905  (a list of sixty strings is sixty lines)
    "bert roberta distilbert albert electra deberta-v2 mpnet xlm-roberta modernbert camembert ernie layoutlm roformer "
    "gpt2 gpt_neo gpt_neox gptj opt bloom falcon llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma gemma2 "
    "gemma3_text phi phi3 olmo2 stablelm smollm3 starcoder2 mamba mamba2 t5 bart marian pegasus vit deit beit dinov2 "
    "swin convnext resnet regnet mobilenet_v2 segformer detr clip siglip wav2vec2 hubert whisper"
).split()

# What runs on every change: each has a mechanism of its own.
PART = (  # noqa: SIM905
    "bert albert deberta-v2 gpt2 llama gemma2 phi3 falcon mixtral mamba t5 whisper vit swin resnet wav2vec2 mobilevit"
).split()


def run(record: Record, options: argparse.Namespace) -> None:
    """What can be changed in every model type of transformers, and in the zoo."""
    chosen = options.only or (PART if options.part else [])
    names = chosen or [*(f"zoo: {name}" for name in ZOO), *(options.types or tiny.model_types())]
    exported = {"none": set(), "families": set(FAMILIES), "all": set(names)}[options.export]
    rows = matrix(names, options.workers, exported)
    types = [row for row in rows if not row["name"].startswith("zoo: ")]
    animals = [row for row in rows if row["name"].startswith("zoo: ")]
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if options.docs:
        versions = f"torch {torch.__version__.partition('+')[0]} and transformers {transformers.__version__}"
        text = page(rows, datetime.datetime.now(datetime.UTC).date().isoformat(), versions)
        options.docs.write_text(text, encoding="utf-8")
    for row in rows:
        record.say(row["name"], line(row))
    wrong = [row["name"] for row in animals if row["found"] != row.get("free")]
    record.say("graphs of the zoo whose free widths were not found as they are", wrong, "", not wrong)
    false = {row["name"]: row["false"] for row in rows if row.get("false")}
    record.say("false acceptances", false, "", not false)
    passed = [row["name"] for row in types if row["passed"]]
    missing = [name for name in FAMILIES if name in names and name not in passed]
    record.say("much used families that do not pass", missing, "", not missing)
    families = {row["name"]: row.get("axes", {}) for row in types if row["name"] in FAMILIES}
    lacking = {kind: [n for n, axes in families.items() if kind not in axes] for kind in ("heads", "ffn", "residual")}
    record.say("of these without an axis of heads", lacking["heads"])
    record.say("of these without an axis of a feed-forward width", lacking["ffn"])
    whole = len(families) < len(FAMILIES) or len(families) - len(lacking["residual"]) >= MUST_STREAMS
    record.say("of these with a residual width", len(families) - len(lacking["residual"]), f"of {len(families)}", whole)
    enough = len(passed) >= (len(types) if chosen else MUST_TYPES)
    record.say("model types certified end to end", len(passed), f"of {len(types)}", enough)


def matrix(names: Sequence[str], workers: int, exported: Set[str]) -> list[dict[str, Any]]:
    """A row each, in the order of the names; of these `exported` to ONNX too."""
    context = multiprocessing.get_context("fork")
    waiting, done = list(names), dict[str, dict[str, Any]]()
    running: dict[str, tuple[Any, Any, float]] = {}  # its process, what it tells, when it began
    while waiting or running:
        while waiting and len(running) < workers:
            name = waiting.pop(0)
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=work, args=(name, name in exported, there), daemon=True)
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
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    torch.set_num_threads(1)
    began = time.perf_counter()
    try:
        row = one(name, export)
    except Exception as error:  # whatever a model may raise is what the row is about
        row = failed(name, f"{type(error).__name__}: {str(error)[:600]}")
    pipe.send({**row, "seconds": round(time.perf_counter() - began, 1)})


def line(row: Mapping[str, Any]) -> str:
    """One row, readable."""
    said = "passes" if row["passed"] else f"no: {row['problem'][:160]}"
    found = f"{row['found']}; {row.get('branches')}; {row.get('share')} %" if row.get("found") is not None else ""
    rejected = "; ".join(f"{s}: {r[:60]}" for s, r in list(row.get("rejected", {}).items())[:3])
    rejected = f"rejected {len(row.get('rejected', {}))} {rejected}"
    unknown = ", ".join(row.get("unknown", {}))
    return f"{said} | {found} | {rejected} | unknown {unknown} | {row.get('seconds')} s"


def page(rows: Sequence[Mapping[str, Any]], date: str, versions: str) -> str:
    """All rows as a page of the documentation."""
    done = [row for row in rows if row["passed"]]
    head = (
        f"# Coverage\n\nMade on {date} by `benchmarks/coverage.py --docs` with {versions}. "
        "A row is a tiny model with random weights: examined, cut to a random half of every axis at once, run, saved, "
        f"loaded and, where it is of a much used family, exported to ONNX; all must compute the same to {SAME} of the "
        "output's scale. "
        f"{len(done)} of {len(rows)} rows pass.\n\n"
        "*share*: percent of the parameters that lie in an axis or a branch. *rejected*: axes and branches that were "
        "proposed and refused, with the commonest reason. *unknown*: operators without a rule; what touches them stays "
        "as it is.\n\n"
        "| model | class | axes | branches | share | rejected | unknown | result |\n|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(f"| {' | '.join(cells(row))} |\n" for row in rows)


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the page, a string a column."""

    def counted(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{number} {kind}" for kind, number in counts.items())

    reasons = Counter(re.sub(r"\d+", "N", reason)[:90] for reason in row.get("rejected", {}).values())
    rejected = "".join(f"{len(row['rejected'])}: {reason}" for reason, _ in reasons.most_common(1))
    result = f"passes{', exported' if 'exported' in row else ''}" if row["passed"] else row["problem"][:200]
    found = [
        row["name"],
        row.get("class", ""),
        counted(row.get("axes", {})),
        counted(row.get("branches", {})),
        f"{row['share']:.0f}" if "share" in row else "",
        rejected,
        ", ".join(row.get("unknown", {})),
        result,
    ]
    return [re.sub(r"\s+", " ", cell).replace("|", "/").replace("<", "&lt;") for cell in found]


if __name__ == "__main__":
    main(
        "coverage",
        run,
        ("--only", {"nargs": "+", "default": None, "help": "these rows"}),
        ("--types", {"nargs": "+", "default": None, "help": "these model types"}),
        ("--part", {"action": "store_true", "help": "the rows that run on every change"}),
        ("--workers", {"type": int, "default": 2}),
        ("--export", {"choices": ("none", "families", "all"), "default": "families", "help": "rows exported to ONNX"}),
        ("--out", {"type": Path, "default": None, "help": "all rows as JSON"}),
        ("--docs", {"type": Path, "default": None, "help": "all rows as a page"}),
    )
