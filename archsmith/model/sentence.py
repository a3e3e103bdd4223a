"""What a sentence-embedding folder says beside its encoder: how token states become one vector.

The files are those of sentence-transformers (modules.json, 1_Pooling/config.json), which is not needed to read them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from archsmith.errors import BadInput
from archsmith.model.pretrained import read_json


@dataclass(frozen=True)
class Pooling:
    """How a sentence-embedding model turns token states into one vector, and how many tokens it reads."""

    mode: Literal["mean", "cls"]
    normalise: bool
    max_length: int | None = None


def read_pooling(folder: Path) -> Pooling | None:
    """What modules.json and its folders say, None for a folder that is not a sentence-embedding model."""
    listing = folder / "modules.json"
    if not listing.is_file():
        return None
    law = "a sentence-embedding model is Transformer, Pooling (mean or cls), and maybe Normalize"
    try:
        modules = json.loads(listing.read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
        modules[1]["path"] if len(kinds) > 1 else None
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(law, f"{type(error).__name__}: {error}", str(listing)) from None
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise BadInput(law, " ".join(kinds), str(listing))
    settings = read_json(folder / modules[1]["path"] / "config.json")
    on = {name.removeprefix("pooling_mode_") for name, value in settings.items() if value is True} - {"include_prompt"}
    on |= {str(settings["pooling_mode"])} if isinstance(settings.get("pooling_mode"), str) else set()
    modes: dict[str, Literal["mean", "cls"]] = {"mean_tokens": "mean", "cls_token": "cls", "mean": "mean", "cls": "cls"}
    mode = modes.get(" ".join(sorted(on)))
    if mode is None:
        raise BadInput(law, " ".join(sorted(on)), str(folder / modules[1]["path"]))
    reading = folder / "sentence_bert_config.json"
    max_length = read_json(reading).get("max_seq_length") if reading.is_file() else None
    return Pooling(mode, "Normalize" in kinds, max_length)


def write_pooling(model: nn.Module, pooling: Pooling, folder: Path) -> None:
    """modules.json and 1_Pooling, which sentence-transformers reads."""
    with torch.no_grad():
        width = model(input_ids=torch.tensor([[0, 1]]))[0].shape[-1]
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * pooling.normalise
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    settings = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pooling.mode == "cls",
        "pooling_mode_mean_tokens": pooling.mode == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    reading = {"max_seq_length": pooling.max_length, "do_lower_case": False}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    files: dict[str, Any] = {"modules.json": modules, "1_Pooling/config.json": settings}
    if not (folder / "sentence_bert_config.json").exists() and pooling.max_length:
        files["sentence_bert_config.json"] = reading
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
