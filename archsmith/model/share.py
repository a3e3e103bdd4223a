"""Copies of a module tree that share what they do not change, and how to put other tensors into them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from archsmith.errors import BadInput


def skeleton(model: nn.Module) -> nn.Module:
    """A copy of the module tree whose parameters are new objects on the same storage; buffers are copied, and so are
    tables that a forward pass writes into (`max_norm`).

    Writing into such a parameter writes into the model's: `copy.deepcopy` the result before training it.

    >>> import torch
    >>> layer = torch.nn.Linear(2, 2)
    >>> twin = skeleton(layer)
    >>> twin.weight is layer.weight, twin.weight.data_ptr() == layer.weight.data_ptr()
    (False, True)
    """
    written = {id(part.weight) for part in model.modules() if getattr(part, "max_norm", None) is not None}
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().clone() if id(p) in written else p.detach(), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    try:
        twin: nn.Module = _twin(model, memo)
        return twin
    except (TypeError, RuntimeError, AttributeError) as error:
        raise BadInput(
            "a model must allow copy.deepcopy", str(error), type(model).__name__, "take out what cannot be copied"
        ) from error


_PLAIN = (type(None), bool, int, float, str, type, torch.dtype, torch.device)


def _twin(module: nn.Module, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy` of a module, several times faster: hooks and plain values need no deep copy."""
    if id(module) in memo:
        return memo[id(module)]
    if hasattr(type(module), "__deepcopy__"):
        return copy.deepcopy(module, memo)
    twin = type(module).__new__(type(module))
    memo[id(module)] = twin
    for key, value in vars(module).items():
        if isinstance(value, _PLAIN):
            held: Any = value
        elif key == "_modules":
            held = {name: None if child is None else _twin(child, memo) for name, child in value.items()}
        elif "_hooks" in key:
            held = copy.copy(value)
        else:
            held = copy.deepcopy(value, memo)
        twin.__dict__[key] = held
    return twin


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once, by its first dotted name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def replace(model: nn.Module, new: Mapping[str, Tensor]) -> None:
    """Put tensors in place of those of these names, everywhere in the tree where the same object is used (ties)."""
    old = tensors(model)
    by_identity: dict[int, Tensor] = {}
    for name, tensor in new.items():
        former = old[name]
        if isinstance(former, nn.Parameter) and not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=former.requires_grad)
        by_identity[id(former)] = tensor
    for module in model.modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for held in tables:
            for key, value in held.items():
                if value is not None and id(value) in by_identity:
                    held[key] = by_identity[id(value)]


def owner(path: str) -> str:
    """The module part of a dotted name.

    >>> owner("encoder.layer.0.weight"), owner("weight")
    ('encoder.layer.0', '')
    """
    return path.rpartition(".")[0]


def common(paths: list[str]) -> str:
    """The lowest module that contains all these modules (or is the only one).

    >>> common(["a.b.query", "a.b.key"]), common(["a.b"])
    ('a.b', 'a.b')
    """
    if len(set(paths)) == 1:
        return paths[0]
    shared: list[str] = []
    for level in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def within(path: str, module: str) -> bool:
    """Does a dotted name lie in a module (or name it)?"""
    return not module or path == module or path.startswith(module + ".")


def ancestors(path: str) -> Iterator[str]:
    """The modules around a dotted name, innermost first, the model itself ('') last."""
    while path:
        path = owner(path)
        yield path


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Set the submodule at a dotted path (one of a list too)."""
    setattr(model.get_submodule(owner(path)), path.rpartition(".")[2], module)


def is_entry(model: nn.Module, path: str) -> bool:
    """Is this module an entry of a ModuleList or Sequential, by number?"""
    return (
        path.rpartition(".")[2].isdigit()
        and isinstance(model.get_submodule(owner(path)), nn.ModuleList | nn.Sequential)
    )  # fmt: skip
