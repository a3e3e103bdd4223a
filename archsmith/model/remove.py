"""Taking branches out: stubs for attention and feed-forward, deletion from its list for a whole layer."""

from __future__ import annotations

import re
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
                module = dict(entry.named_modules()).get(path)
                if module is not None and hasattr(module, attribute):
                    setattr(module, attribute, i)


def _stub(model: nn.Module, branch: Branch) -> None:
    bias = model.get_submodule(branch.exit)._parameters.get("bias")
    if branch.feeder:
        put(model, branch.feeder, Skip())
    if within(branch.exit, branch.module):
        put(model, branch.module, Skip(branch.items, constant=True, bias=bias))
        return
    put(model, branch.module, Skip(branch.items))
    put(model, branch.exit, Bias(bias))


_NUMBER = re.compile(r"idx|index|layer|block|number|depth|_id$")


def _numbers(entries: nn.Module) -> list[tuple[str, str]]:
    """The attributes (path in an entry, name) in which the entries of a list hold their own number."""
    holders: dict[tuple[str, str], list[bool]] = {}
    for i, entry in enumerate(entries.children()):
        for path, module in entry.named_modules():
            for name, value in vars(module).items():
                if type(value) is int and _NUMBER.search(name):
                    holders.setdefault((path, name), []).append(value == i)
    # A piece that was skipped earlier holds no number any more, so not every entry need have one.
    return [key for key, right in holders.items() if len(right) > 1 and all(right)]
