"""Taking branches out: stubs for attention and feed-forward, deletion from its list for a whole layer."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from archsmith.model.anatomy import Branch
from archsmith.model.share import owner, put, within
from archsmith.model.stubs import Bias, Skip


def remove(model: nn.Module, branches: Iterable[Branch]) -> None:
    """Take these branches out of a model that may be changed. A list that loses entries counts its entries anew."""
    layers = [branch.module for branch in branches if branch.kind == "layer"]
    for branch in branches:
        if branch.kind != "layer":
            _stub(model, branch)
    # Modules are looked up before any list shrinks, since paths shift when it does.
    doomed = [(model.get_submodule(owner(path)), model.get_submodule(path)) for path in layers]
    numbered = {id(parent): (parent, _numbers(parent)) for parent, _ in doomed}
    for parent, entry in doomed:
        assert isinstance(parent, nn.ModuleList | nn.Sequential)
        del parent[next(i for i, module in enumerate(parent) if module is entry)]
    for parent, places in numbered.values():
        for i, entry in enumerate(parent.children()):
            for path, attribute in places:
                if path in dict(entry.named_modules()):
                    setattr(entry.get_submodule(path), attribute, i)


def _stub(model: nn.Module, branch: Branch) -> None:
    exit_ = model.get_submodule(branch.exit)
    bias = getattr(exit_, "bias", None)
    width = getattr(exit_, "out_features", None) or getattr(exit_, "nf", None)
    assert isinstance(width, int)
    if within(branch.exit, branch.module):
        whole = Skip(branch.items, width, bias is not None)
        whole.bias = bias
        put(model, branch.module, whole)
        return
    end = Bias(width, bias is not None)
    end.bias = bias
    put(model, branch.exit, end)
    put(model, branch.module, Skip(branch.items))


def _numbers(entries: nn.Module) -> list[tuple[str, str]]:
    """The attributes (path in an entry, name) in which every entry of a list of two or more holds its own number."""
    listed = list(entries.children())
    if len(listed) < 2:
        return []
    found = [
        (path, name)
        for path, module in listed[1].named_modules()
        for name, value in vars(module).items()
        if type(value) is int and value == 1
    ]
    return [(path, name) for path, name in found if all(_holds(e, path, name, i) for i, e in enumerate(listed))]


def _holds(entry: nn.Module, path: str, name: str, number: int) -> bool:
    module = dict(entry.named_modules()).get(path)
    value = getattr(module, name, None)
    # A piece that was skipped holds no number any more.
    return module is None or not hasattr(module, name) or (type(value) is int and value == number)
