"""A transformers model that archsmith made smaller, rebuilt from what its config.json says under "archsmith".

This file travels with the saved model and needs torch and transformers only:

    AutoModelFor....from_pretrained(folder, trust_remote_code=True)

The original class is built first, then `rebuild` drops list entries, puts stubs where blocks were skipped, gives
parameters their new shapes and sets the integers that were baked into modules. Plain data in, no code in it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from archsmith.model.stubs import Bias, Heads, Skip, Taking, taking

STUBS: dict[str, type[nn.Module]] = {"Bias": Bias, "Heads": Heads, "Skip": Skip, "Taking": Taking}
POSITION_NAMES = ("layer_idx", "layer_id")  # a layer's place in the key-value cache: follows its place in the list


def rebuild(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Turn the uncut `model` into the cut one, in place. Every key of `record` may be absent:

    `kept`        list path -> indices of the entries that stay, outer lists first
    `stubs`       module path -> stub class name, or None for a module that is gone
    `shapes`      parameter name -> shape, or None for a parameter that is gone
    `buffers`     buffer name -> [shape, dtype name]: buffers that the constructor cannot make, stored with the weights
    `attributes`  [module path, name, value] of plain values that differ; a tuple is {"tuple": [...]}
    """
    for path, indices in record.get("kept", {}).items():
        keep_entries(model, path, indices)
    for path, name in record.get("stubs", {}).items():
        module = model.get_submodule(path)
        if name == "Taking":
            module.__class__ = taking(type(module))
        elif name is not None and type(module) is not nn.Module and issubclass(STUBS[name], type(module)):
            module.__class__ = STUBS[name]  # the same parts with another forward
        else:
            replace(model, path, None if name is None else new_stub(name))
    for name, shape in record.get("shapes", {}).items():
        owner, leaf = owner_of(model, name)
        old = owner._parameters.get(leaf)
        dtype = torch.float32 if old is None else old.dtype
        empty = None if shape is None else nn.Parameter(torch.zeros(shape, dtype=dtype))
        owner.register_parameter(leaf, empty)
    for name, (shape, dtype_name) in record.get("buffers", {}).items():
        owner, leaf = owner_of(model, name)
        owner.register_buffer(leaf, torch.zeros(shape, dtype=getattr(torch, dtype_name)), persistent=True)
    for path, name, value in record.get("attributes", []):
        if name.removeprefix("config.").startswith("__"):
            raise ValueError(f"an attribute to set cannot be special; found {name!r} of {path!r}")
        set_value(model.get_submodule(path), name, from_json(value))


def set_value(module: nn.Module, name: str, value: Any) -> None:
    """Set a plain attribute; one of `config` ("config.num_heads") in a copy of it that this module alone reads."""
    if not name.startswith("config."):
        setattr(module, name, value)
        return
    leaf = name.removeprefix("config.")
    own: Any = copy.copy(module.config)
    own.archsmith_own = {**getattr(own, "archsmith_own", {}), leaf: value}
    setattr(own, leaf, value)
    module.config = own


def keep_entries(model: nn.Module, path: str, indices: list[int]) -> None:
    """Keep only these entries of the list at `path`; layers of an outermost list get their new place in the cache."""
    old = model.get_submodule(path)
    entries = [old[index] for index in indices]  # type: ignore[index]
    replace(model, path, nn.Sequential(*entries) if isinstance(old, nn.Sequential) else nn.ModuleList(entries))
    if any(part.isdigit() for part in path.split(".")):
        return
    for place, entry in enumerate(entries):
        for module in entry.modules():
            for name in POSITION_NAMES:
                if isinstance(getattr(module, name, None), int):
                    setattr(module, name, place)


def replace(model: nn.Module, path: str, new: nn.Module | None) -> None:
    """Put `new` in the place of the module at `path`."""
    owner, leaf = owner_of(model, path)
    owner._modules[leaf] = new


def new_stub(name: str) -> nn.Module:
    """An empty stub: its attributes and parameters come from the record like those of every other module."""
    stub = STUBS[name].__new__(STUBS[name])
    nn.Module.__init__(stub)
    return stub


def owner_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds the parameter, buffer or module of this dotted name, and its last part."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def from_json(value: Any) -> Any:
    """A plain value from its JSON form: {"tuple": [...]} is a tuple, the rest is itself."""
    if isinstance(value, dict):
        return tuple(from_json(item) for item in value["tuple"])
    return [from_json(item) for item in value] if isinstance(value, list) else value


class Smaller:
    """Comes before a transformers class; without a record in the config the class stays what it was."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        record = getattr(config, "archsmith", None)
        if record:
            assert isinstance(self, nn.Module)
            rebuild(self, record)
