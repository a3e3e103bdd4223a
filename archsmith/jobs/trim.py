"""Cut a model's vocabulary down to the tokens that data use: `archsmith trim`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.cost import weight_bytes
from archsmith.errors import ArchsmithError, BadInput
from archsmith.jobs.optimize import check_out
from archsmith.jobs.stages import READ
from archsmith.model.load import Loaded, load
from archsmith.model.save import save
from archsmith.model.vocabulary import check_trimmable, kept_tokens, with_vocabulary
from archsmith.tasks.columns import find_texts
from archsmith.tasks.language_modelling import PLAIN, documents
from archsmith.tasks.read import read

BATCH = 1000  # texts that are tokenised at once


def trim(
    source: str,
    data: Sequence[str],
    out: str | Path,
    *,
    text: Sequence[str] | None = None,
    task: str | None = None,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Write the model of `source` into `out` with the tokens alone that occur in `data`, and a tokenizer to match.

    `data`: tables with columns of texts (`text` names them), plain texts, or names of `datasets`; give all that the
    model will see the like of, but nothing that is held out. `task` chooses the head, as in `optimize`. Returns counts
    before and after, and how far the outputs are from the whole model's. Raises `BadInput`.
    """
    folder = Path(out)
    check_out(folder)
    if not data:
        raise BadInput("tokens are kept by the data that use them", "none", "--data", "name a file")
    loaded = load(source, allow_code=allow_code, task=task)
    if loaded.tokenizer is None:
        raise BadInput("a vocabulary is that of a tokenizer", "none", source, "put it beside the model")
    texts = [one for name in data for one in texts_of(name, text)]
    if not any(one.strip() for one in texts):
        raise BadInput("tokens are kept by the texts that use them", "none", ", ".join(data), "give texts")
    check_trimmable(loaded)
    before = tokenised(loaded, texts)
    order = kept_tokens(loaded, np.unique(np.concatenate(before)).tolist())
    small, error = with_vocabulary(loaded, order)
    after = tokenised(small, texts)
    differ = sum(not np.array_equal(old, order[new]) for old, new in zip(before, after, strict=True))
    if differ:
        raise ArchsmithError(f"a text of kept tokens must be made of the same; {differ} of {len(texts)} are not")
    with tempfile.TemporaryDirectory() as scratch:
        small.tokenizer.save_pretrained(scratch)  # type: ignore[union-attr]
        own = {path.name: path for path in sorted(Path(scratch).iterdir()) if path.is_file()}
        others = {name: path for name, path in loaded.files.items() if not READ.match(name) or name[0].isdigit()}
        try:
            save(small.model, replace(small, files={**others, **own}), folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return {
        "model": source,
        "out": str(folder),
        "texts": len(texts),
        "tokens": [rows_of(loaded), len(order)],
        "parameters": [sum(p.numel() for p in each.model.parameters()) for each in (loaded, small)],
        "bytes": [weight_bytes(each.model) for each in (loaded, small)],
        "deviation": error,
    }


def rows_of(loaded: Loaded) -> int:
    """Rows of the table of tokens."""
    rows: int = loaded.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    return rows


def texts_of(name: str, text: Sequence[str] | None) -> list[str]:
    """All texts of a file: its passages, or the rows of its columns of texts."""
    if Path(name).suffix.lower() in PLAIN:
        return documents(name, text)
    table = read(name)
    return [one for column in find_texts(table, text) for one in table.strings(column)]


def tokenised(loaded: Loaded, texts: Sequence[str]) -> list[np.ndarray]:
    """The tokens of each text, with those that the tokenizer puts around it; nothing is cut off or padded."""
    tokenizer: Any = loaded.tokenizer
    found: list[np.ndarray] = []
    for begin in range(0, len(texts), BATCH):
        ids = tokenizer(list(texts[begin : begin + BATCH]), truncation=False, padding=False)["input_ids"]
        found += [np.asarray(row, dtype=np.int64) for row in ids]
    return found
