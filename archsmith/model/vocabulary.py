"""Vocabulary as its own move: the tokens that data use stay, in the tables of the model and in the tokenizer alike.

Text that is made of kept tokens is made of the same ones afterwards: the merges that lead to them stay, and so do all
single characters and bytes, from which everything else can still be spelt, though in more tokens.

V: tokens before, K: tokens kept.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace as changed
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith.errors import BadInput
from archsmith.model.cut import put_positions
from archsmith.model.load import Loaded
from archsmith.model.running import deviation, main_outputs
from archsmith.model.share import skeleton, tensors
from archsmith.model.wide import computed_wide

TOKEN_IDS = re.compile(r"\w*token_(id|ids|index|idx)")
"""Names of a config's values that are numbers of tokens."""

LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
"""Names of lists of tokens that are forbidden when a model generates."""

SAME = 1e-4  # of the output's scale


def check_trimmable(loaded: Loaded) -> None:
    """That there is a table of tokens and a tokenizer.json. Raises `BadInput`."""
    _table(loaded.model)
    _plain(loaded)


def kept_tokens(loaded: Loaded, used: Iterable[int]) -> np.ndarray:
    """The old numbers (K,) of the tokens that stay, in the order of their new ones.

    Special tokens keep their number where there still is such a number; the others follow in their old order. Raises
    `BadInput` where the tokenizer is not one of the library tokenizers.
    """
    rows = _table(loaded.model).shape[0]
    data = _plain(loaded)
    numbers = _numbers(data["model"])
    names = {number: name for name, number in numbers.items()}
    special = {int(n) for n in loaded.tokenizer.all_special_ids} | set(_token_ids(loaded.model.config))  # type: ignore[union-attr]
    special |= {entry["id"] for entry in data["added_tokens"] if entry["special"]}
    special |= set(_token_ids(getattr(loaded.model, "generation_config", None))) | set(_around(data["post_processor"]))
    special |= {data["model"].get("unk_id"), numbers.get(data["model"].get("unk_token") or "")} - {None}
    prefix = data["model"].get("continuing_subword_prefix") or ""
    suffix = data["model"].get("end_of_word_suffix") or ""
    single = {number for name, number in numbers.items() if _is_single(name, prefix, suffix)}
    kept = {int(n) for n in used} | special | single
    if data["model"]["type"] == "BPE":
        made: dict[str, list[str]] = {}  # of several ways to make one, all stay
        for a, b in _merges(data["model"]):
            made.setdefault(f"{a}{b.removeprefix(prefix)}", []).extend((a, b))
        waiting = [names[n] for n in kept if n in names]
        while waiting:
            for part in made.get(waiting.pop(), ()):
                if part in numbers and numbers[part] not in kept:
                    kept.add(numbers[part])
                    waiting.append(part)
    # A vocabulary that is a list is numbered by its places.
    return _ordered({n for n in kept if n < rows}, set() if isinstance(data["model"]["vocab"], list) else special)


def _ordered(kept: set[int], special: set[int]) -> np.ndarray:
    """Old numbers by new ones.

    >>> _ordered({0, 3, 5, 9}, {3, 9}).tolist()
    [0, 5, 9, 3]
    """
    order = np.full(len(kept), -1, dtype=np.int64)
    stay = [n for n in special & kept if n < len(kept)]
    order[stay] = stay
    order[order < 0] = sorted(kept.difference(stay))
    return order


def with_vocabulary(loaded: Loaded, order: np.ndarray) -> tuple[Loaded, float]:
    """The model and its tokenizer with these tokens (K,) alone, and how far its outputs are from the whole model's.

    On inputs of kept tokens all outputs are to be the same; logits of tokens are compared for those that are kept. What
    was loaded is not touched. Raises `BadInput` where that is not so, or where nothing can be cut.
    """
    table, new_of = _table(loaded.model), {int(old): new for new, old in enumerate(order)}
    small = skeleton(loaded.model).eval()
    total = table.shape[0]
    places = {
        name: {dim: order for dim, size in enumerate(tensor.shape) if size == total}
        for name, tensor in tensors(small).items()
    }
    put_positions(small, {name: dims for name, dims in places.items() if dims})
    for module in small.modules():
        padding: Any = getattr(module, "padding_idx", None)
        if isinstance(padding, int):
            setattr(module, "padding_idx", new_of.get(padding))  # noqa: B010  (mypy takes an attribute for a tensor)
        if getattr(module, "vocab_size", None) == total:
            setattr(module, "vocab_size", len(order))  # noqa: B010
    for config in (small.config, getattr(small, "generation_config", None)):
        _renumber(config, new_of, total)
    tokenizer = _renumbered(loaded, new_of)
    inputs, renumbered = _probe(loaded, order)
    with torch.no_grad(), computed_wide(small):
        whole, now = main_outputs(loaded.model(**inputs)), main_outputs(small(**renumbered))
    kept = torch.from_numpy(order)
    whole = [x.index_select(-1, kept) if x.shape[-1] == total else x for x in whole]
    error = deviation(now, whole)
    if not error <= SAME:
        law = "a model with fewer tokens must compute what it computed before"
        raise BadInput(law, f"a deviation of {error:.1e} of the output's scale", loaded.source, "keep its vocabulary")
    return changed(loaded, model=small, tokenizer=tokenizer, example=renumbered), error


def _table(model: nn.Module) -> Tensor:
    """The table (V, width) that tokens are looked up in."""
    find: Any = getattr(model, "get_input_embeddings", None)
    table = getattr(find() if find else None, "weight", None)
    if not isinstance(table, Tensor):
        law, remedy = "a vocabulary is that of a language model of transformers", "bring one with its tokenizer"
        raise BadInput(law, type(model).__name__, "the model", remedy)
    return table


def _plain(loaded: Loaded) -> dict[str, Any]:
    """What the tokenizer is made of, as its tokenizer.json says it."""
    backend = getattr(loaded.tokenizer, "backend_tokenizer", None)
    if backend is None:
        law, remedy = "a vocabulary is cut in a tokenizer.json", "convert the tokenizer to a fast one"
        raise BadInput(law, type(loaded.tokenizer).__name__, loaded.source, remedy)
    found: dict[str, Any] = json.loads(backend.to_str())
    return found


def _numbers(model: Mapping[str, Any]) -> dict[str, int]:
    """Token -> number."""
    vocabulary = model["vocab"]
    return {entry[0]: n for n, entry in enumerate(vocabulary)} if isinstance(vocabulary, list) else dict(vocabulary)


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = [each.split(" ", 1) if isinstance(each, str) else each for each in model["merges"]]
    return [(a, b) for a, b in pairs]


def _is_single(name: str, prefix: str, suffix: str) -> bool:
    """A character, alone, within a word or at its end, or a byte."""
    forms = {name, name.removeprefix(prefix), name.removesuffix(suffix)}
    return any(len(form) == 1 for form in forms) or re.fullmatch(r"<0x[0-9A-F]{2}>", name) is not None


def _around(part: Any) -> list[int]:
    """The numbers of the tokens that a post-processor puts around texts."""
    if not isinstance(part, dict):
        return []
    entries = part["special_tokens"].values() if isinstance(part.get("special_tokens"), dict) else ()
    found = [n for entry in entries for n in entry["ids"]]
    found += [part[name][1] for name in ("sep", "cls") if isinstance(part.get(name), list)]
    return found + [n for each in part.get("processors", ()) for n in _around(each)]


def _renumbered(loaded: Loaded, new_of: Mapping[int, int]) -> Any:
    """A copy of the tokenizer with these tokens alone, under their new numbers."""
    from tokenizers import Tokenizer

    data = _plain(loaded)
    model = data["model"]
    if isinstance(model["vocab"], list):
        entries = {new_of[n]: entry for n, entry in enumerate(model["vocab"]) if n in new_of}
        model["vocab"] = [entries[n] for n in sorted(entries)]
        if model.get("unk_id") is not None:
            model["unk_id"] = new_of[model["unk_id"]]
    else:
        model["vocab"] = {name: new_of[n] for name, n in model["vocab"].items() if n in new_of}
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        there = model["vocab"]
        model["merges"] = [
            [a, b]
            for a, b in _merges(model)
            if a in there and b in there and f"{a}{b.removeprefix(prefix) if prefix else b}" in there
        ]
    data["added_tokens"] = [
        {**entry, "id": new_of[entry["id"]]} for entry in data["added_tokens"] if entry["id"] in new_of
    ]
    if data.get("padding"):
        data["padding"]["pad_id"] = new_of.get(data["padding"]["pad_id"], 0)
    _renumber_around(data.get("post_processor"), new_of)
    twin = copy.deepcopy(loaded.tokenizer)
    twin._tokenizer = Tokenizer.from_str(json.dumps(data))  # type: ignore[union-attr]
    return twin


def _renumber_around(part: Any, new_of: Mapping[int, int]) -> None:
    """Renumber what a post-processor puts around texts, in place."""
    if not isinstance(part, dict):
        return
    for entry in part.get("special_tokens", {}).values() if isinstance(part.get("special_tokens"), dict) else ():
        entry["ids"] = [new_of[n] for n in entry["ids"]]
    for name in ("sep", "cls"):
        if isinstance(part.get(name), list):
            part[name] = [part[name][0], new_of[part[name][1]]]
    for each in part.get("processors", ()):
        _renumber_around(each, new_of)


def _token_ids(config: Any) -> list[int]:
    """Every number of a token that a config holds, of its parts too."""
    found: list[int] = []
    for name, value in vars(config).items() if config is not None else ():
        if hasattr(value, "to_dict"):
            found += _token_ids(value)
        elif TOKEN_IDS.fullmatch(name):
            found += [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int) and n >= 0]
    return found


def _renumber(config: Any, new_of: Mapping[int, int], total: int) -> None:
    """Give a config's tokens their new numbers, in place, and its vocabularies of `total` tokens their new size."""
    for name, value in vars(config).items() if config is not None else ():
        if hasattr(value, "to_dict"):
            _renumber(value, new_of, total)
        elif TOKEN_IDS.fullmatch(name) and isinstance(value, int | list) and not isinstance(value, bool):
            new = [new_of[n] for n in (value if isinstance(value, list) else [value]) if n in new_of]
            setattr(config, name, new if isinstance(value, list) else new[0] if new else None)
        elif name in LISTS and value:
            setattr(config, name, _renumbered_list(value, new_of))
        elif name.endswith("vocab_size") and value == total:
            setattr(config, name, len(new_of))


def _renumbered_list(value: list[Any], new_of: Mapping[int, int]) -> list[Any] | None:
    """Tokens, or lists of them, without those that are gone."""
    if all(isinstance(each, int) for each in value):
        return [new_of[n] for n in value if n in new_of] or None
    rows = [row for row in value if all(n in new_of for n in row)]
    return [[new_of[n] for n in row] for row in rows] or None


def _probe(loaded: Loaded, order: np.ndarray) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs of kept tokens, drawn at random between the example's first and last, by their old and new numbers."""
    if loaded.example is None:
        raise BadInput("a model is compared on example inputs", "none could be made", loaded.source)
    rng = np.random.default_rng(0)
    new_of = np.zeros(int(order.max()) + 1, dtype=np.int64)
    new_of[order] = np.arange(len(order))
    old, new = dict(loaded.example), dict(loaded.example)
    for name, ids in loaded.example.items():
        if name.endswith("input_ids"):
            drawn = order[rng.integers(0, len(order), tuple(ids.shape))]
            old[name], new[name] = torch.from_numpy(drawn), torch.from_numpy(new_of[drawn])
    return old, new
