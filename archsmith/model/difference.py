"""What a cut transformers model has that its class and config do not say: the record that `rebuild` reads.

The uncut model is built from the config on the meta device (no memory, no weights), compared with the cut one and
brought nearer to it step by step with the same `rebuild` that will run on the user's machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from archsmith.errors import ArchsmithError
from archsmith.model.modeling_archsmith import POSITION_NAMES, STUBS, Smaller, rebuild
from archsmith.model.share import within
from archsmith.model.stubs import Taking

Record = dict[str, Any]
LISTS = (nn.ModuleList, nn.Sequential)
LAYER_COUNTS = frozenset(["num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "depth"])
LAYER_COUNTS |= {"encoder_layers", "decoder_layers"}
TAKING = Taking.__name__  # a stub that keeps the parts of the module in whose place it stands
MOST_CHANGES = 8  # a model cut evenly shows few different numbers; only such a cut can be said by a config


def base_class(model: nn.Module) -> type[nn.Module] | None:
    """The class of transformers itself that `model` is, or that ours rebuilds; None for any other.

    A class that derives from one of transformers holds or does more than that one, which no config can say.
    """
    kind, *bases = type(model).__mro__
    if bases and bases[0].__name__ == Smaller.__name__:
        kind = bases[1]
    return kind if kind.__module__.startswith("transformers.models.") else None


def build_uncut(base: type[nn.Module], config: Any) -> nn.Module:
    """The class as the config says, on the meta device: shapes without memory. Not for running."""
    with torch.device("meta"):
        return base(deepcopy(config)).eval()


def difference(base: type[nn.Module], config: Any, small: nn.Module) -> Record:
    """The record that turns `base(config)` into `small`; empty where the config says everything.

    Raises `ArchsmithError` where `small` holds a module that is neither the original's nor a stub.
    """
    full = build_uncut(base, config)
    record: Record = {"kept": _kept(full, small)}
    record["stubs"] = _stubs(full, small)
    record["shapes"] = _shapes(full, small)
    record["buffers"] = _buffers(full, small)
    record["attributes"] = _attributes(full, small)
    return {key: value for key, value in record.items() if value}


def _kept(full: nn.Module, small: nn.Module) -> dict[str, list[int]]:
    """Lists that have lost entries -> the indices that stay. `full` is brought to the same lengths."""
    kept = {}
    for path, module in small.named_modules():
        if not isinstance(module, LISTS) or not _has(full, path):
            continue
        other = full.get_submodule(path)
        if isinstance(other, LISTS) and len(other) > len(module):
            full_facts, small_facts = ([describe(entry) for entry in entries] for entries in (other, module))
            kept[path] = aligned([[unlike(old, new) for old in full_facts] for new in small_facts])
            rebuild(full, {"kept": {path: kept[path]}})
    return kept


def _stubs(full: nn.Module, small: nn.Module) -> dict[str, str | None]:
    """Paths where the cut model has a stub or nothing. `full` gets the same."""
    stubs: dict[str, str | None] = {}
    for path, module in list(full.named_modules()):
        if path == "" or any(path.startswith(f"{gone}.") for gone, name in stubs.items() if name != TAKING):
            continue
        new = small.get_submodule(path) if _has(small, path) else None
        if new is not None and _same_class(type(new), type(module)):
            continue  # the root may be a subclass that only rebuilds, hence it is not compared
        if new is not None and type(new).__name__ not in STUBS:
            law = "a cut model may hold the original's modules and stubs only"
            raise ArchsmithError(f"{law}; found {type(new).__name__} at {path}, where {type(module).__name__} was")
        stubs[path] = None if new is None else type(new).__name__
    rebuild(full, {"stubs": stubs})
    return stubs


def _same_class(one: type, other: type) -> bool:
    """Is it the same class, or one that torch makes anew for each parametrised module?"""
    return one is other or (one.__bases__, one.__qualname__) == (other.__bases__, other.__qualname__)


def _shapes(full: nn.Module, small: nn.Module) -> dict[str, list[int] | None]:
    """Parameters whose shape differs, that are new (a bias that repair added), or that are gone (None)."""
    shapes: dict[str, list[int] | None] = {}
    for path, module in small.named_modules():
        if not _has(full, path):
            raise ArchsmithError(f"a cut model may hold the original's modules and stubs only; {path} is new")
        other = full.get_submodule(path)
        for leaf in dict.fromkeys([*module._parameters, *other._parameters]):
            new, old = module._parameters.get(leaf), other._parameters.get(leaf)
            new_shape = None if new is None else list(new.shape)
            if new_shape != (None if old is None else list(old.shape)):
                shapes[f"{path}.{leaf}" if path else leaf] = new_shape
    return shapes


def _buffers(full: nn.Module, small: nn.Module) -> dict[str, list[Any]]:
    """[shape, dtype name] of the buffers in the file (running statistics) that have another shape."""
    stored = small.state_dict().keys()
    old = dict(full.named_buffers(remove_duplicate=False))
    return {
        name: [list(buffer.shape), str(buffer.dtype).removeprefix("torch.")]
        for name, buffer in small.named_buffers(remove_duplicate=False)
        if name in stored and name in old and old[name].shape != buffer.shape
    }


def _attributes(full: nn.Module, small: nn.Module) -> list[list[Any]]:
    """[path, name, value] of plain attributes that differ."""
    changed = []
    for path, module in small.named_modules():
        old = plain_attributes(full.get_submodule(path))
        for name, value in plain_attributes(module).items():
            stale = name in LAYER_COUNTS and name in old and old[name] < value  # the list itself says how many are left
            if not stale and (name not in old or old[name] != value or type(old[name]) is not type(value)):
                changed.append([path, name, to_json(value)])
        for name, value in getattr(getattr(module, "config", None), "archsmith_own", {}).items():
            if _said(full.get_submodule(path).config, name) != value:
                changed.append([path, f"config.{name}", value])
    return changed


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes of one module that JSON can hold, without its mode, its place in the cache and private names."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in ("training", *POSITION_NAMES) and _is_plain(value)
    }


def describe(module: nn.Module) -> frozenset[tuple[str, str, str]]:
    """Everything comparable about a module tree as a set: types, plain attributes, parameter shapes."""
    facts = set()
    for path, part in module.named_modules():
        facts.add((path, "type", type(part).__name__))
        facts |= {(path, name, repr(value)) for name, value in plain_attributes(part).items()}
        facts |= {(path, name, str(list(p.shape))) for name, p in part.named_parameters(recurse=False)}
    return frozenset(facts)


def unlike(full: frozenset[tuple[str, str, str]], small: frozenset[tuple[str, str, str]]) -> int:
    """How many facts differ, leaving out the places where `small` has a stub: what stood there cannot be seen.

    >>> norm, stub = ("norm", "type", "LayerNorm"), ("norm", "type", "Skip")
    >>> unlike(frozenset([norm, ("", "width", "4")]), frozenset([stub, ("", "width", "3")]))
    2
    """
    stubs = {path for path, name, value in small if name == "type" and value in STUBS and value != TAKING}
    return sum(not any(within(path, stub) for stub in stubs) for path, _, _ in full ^ small)


def aligned(costs: Sequence[Sequence[int]]) -> list[int]:
    """Which entries of the full list, in order, the entries of the shortened one come from, at the smallest total.

    `costs`: for each entry of the shortened list, how unlike it is to each entry of the full one.

    >>> aligned([[2, 4, 4], [4, 4, 0]])
    [0, 2]
    """
    # best[j]: cheapest (cost, choice) for the shortened list so far when it uses only the first j entries of the full
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())] * (max(map(len, costs), default=0) + 1)
    for place, row in enumerate(costs):
        new: list[tuple[int, tuple[int, ...]]] = [(10**9, ())]
        for j, cost in enumerate(row):
            taken = (best[j][0] + cost, (*best[j][1], j)) if j >= place else new[-1]
            new.append(min(new[-1], taken))
        best = new
    return list(best[-1][1])


def fitted(base: type[nn.Module], config: Any, small: nn.Module) -> tuple[Any, Any]:
    """Two copies of `config` that say more of the cut model: everything if that is possible, and its number of layers.

    Integers of the config are changed, one after another, to numbers seen in `small` as long as the difference shrinks
    and nothing new differs. A config that in the end says a part of the widths only would mislead, and is not kept.
    """
    layers = _with_layer_counts(base, deepcopy(config), small)
    best, left = layers, _facts(difference(base, layers, small))
    changes = _changed_numbers(base, layers, small)
    if len(changes) > MOST_CHANGES:
        return layers, layers
    for name, value in sorted(_integers(layers).items()):
        for new in sorted(new for old, new in changes if old == value):
            trial = deepcopy(best)
            setattr(trial, name, new)
            facts = _try(base, trial, small)
            if facts is not None and facts < left:
                best, left = trial, facts
    return (layers if left else best), layers


def _with_layer_counts(base: type[nn.Module], config: Any, small: nn.Module) -> Any:
    """The config with fewer layers where a count in it fits a shortened list, and its lists of that length too."""
    full, shortened = build_uncut(base, config), build_uncut(base, config)
    for path, indices in _kept(shortened, small).items():
        length = _length(full, path)
        for name in [name for name, value in _integers(config).items() if name in LAYER_COUNTS and value == length]:
            trial = deepcopy(config)
            for key, value in vars(config).items():  # first the lists: a config may check their length
                if isinstance(value, list) and len(value) == length:
                    setattr(trial, key, [value[index] for index in indices])
            setattr(trial, name, len(indices))
            facts = _try(base, trial, small)
            if facts is not None and ("kept", path) not in {fact[:2] for fact in facts} and _cache_fits(trial, small):
                config = trial
                break
    return config


def _cache_fits(config: Any, small: nn.Module) -> bool:
    """Does the key-value cache have a place for every layer? T5 sizes it by its encoder's number of layers."""
    stacks = [
        len(list(module.children()))
        for path, module in small.named_modules()
        if isinstance(module, LISTS) and not any(part.isdigit() for part in path.split("."))
        if any(hasattr(part, name) for part in module.modules() for name in POSITION_NAMES)
    ]
    return max(stacks, default=0) <= int(config.num_hidden_layers)


def _length(model: nn.Module, path: str) -> int:
    """How many entries the list at `path` has."""
    return len(list(model.get_submodule(path).children()))


def _integers(config: Any) -> Mapping[str, int]:
    """The whole numbers of a config under the names that the config itself uses, without token ids."""
    values = config.to_dict()
    return {
        name: value
        for name, value in values.items()
        if type(value) is int and value > 1 and not name.endswith("_id") and _said(config, name) is not None
    }


def _said(config: Any, name: str) -> Any:
    """A value of a config; None where it has none, or one for each layer and will not say which."""
    try:
        return getattr(config, name)
    except Exception:  # transformers raises a class of its own for what differs from layer to layer
        return None


def _changed_numbers(base: type[nn.Module], config: Any, small: nn.Module) -> set[tuple[int, int]]:
    """Pairs of a whole number of the uncut model and one that stands in its place in the cut model."""
    record = difference(base, config, small)
    full = build_uncut(base, config)
    rebuild(full, {key: record.get(key, {}) for key in ("kept", "stubs")})
    old_shapes = {name: tensor.shape for name, tensor in full.named_parameters(remove_duplicate=False)}
    pairs: list[tuple[Any, Any]] = [
        pair
        for name, shape in record.get("shapes", {}).items()
        if shape is not None and name in old_shapes
        for pair in zip(old_shapes[name], shape, strict=False)
    ]
    for path, name, new in record.get("attributes", []):
        module = full.get_submodule(path)
        own = name.removeprefix("config.")
        pairs.append((_said(module if own == name else module.config, own), new))
    return {(old, new) for old, new in pairs if type(old) is int and type(new) is int and old != new}


def _try(base: type[nn.Module], config: Any, small: nn.Module) -> set[tuple[str, ...]] | None:
    """The facts of the difference, or None where the class refuses such a config."""
    try:
        return _facts(difference(base, config, small))
    except Exception:  # any class may refuse any value in any way; a refusal is an answer
        return None


def _facts(record: Record) -> set[tuple[str, ...]]:
    """A record as the set of what differs, without the values."""
    facts = {(key, name) for key in ("kept", "stubs", "shapes") for name in record.get(key, {})}
    return facts | {("attributes", path, name) for path, name, _ in record.get("attributes", [])}


def to_json(value: Any) -> Any:
    """A plain value as JSON: a tuple becomes {"tuple": [...]}, read back by `from_json`."""
    if isinstance(value, tuple):
        return {"tuple": [to_json(item) for item in value]}
    return [to_json(item) for item in value] if isinstance(value, list) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def _has(model: nn.Module, path: str) -> bool:
    try:
        return isinstance(model.get_submodule(path), nn.Module)
    except AttributeError:
        return False
