"""From a trace to branches: what rejoins a residual stream, and how it could be skipped whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as changed

from torch import nn

from archsmith.model.anatomy import Axis, Branch, BranchKind
from archsmith.model.axes import Candidate
from archsmith.model.labels import leaves, resolve
from archsmith.model.share import ancestors, common, is_entry, owner, within
from archsmith.model.trace import Addition, ModuleCall, Traced, Use


def propose(traced: Traced, model: nn.Module, candidates: Sequence[Candidate]) -> list[Branch]:
    """The layers, attention and feed-forward blocks that could be skipped, in the order in which they run."""
    layers = _layers(traced, model)
    blocks: dict[str, Branch] = {}
    for addition in traced.additions:
        branch = _block(traced, model, addition, candidates)
        if branch is not None:
            blocks.setdefault(branch.name, branch)
    axes = [candidate.axis for candidate in candidates]
    return [changed(branch, axes=vanishing(branch, axes)) for branch in [*layers, *blocks.values()]]


def vanishing(branch: Branch, axes: Sequence[Axis]) -> tuple[str, ...]:
    """The axes with every place inside what the branch removes."""
    removed = [path for path in (branch.module, branch.exit, branch.feeder) if path]
    return tuple(
        axis.name
        for axis in axes
        if all(any(within(place.parameter, module) for module in removed) for place in axis.places)
    )


def _layers(traced: Traced, model: nn.Module) -> list[Branch]:
    streams = {atom for addition in traced.additions for atom in leaves(addition.label)}
    found: dict[str, Branch] = {}
    for call in traced.calls:
        if not call.module or not is_entry(model, call.module) or not call.rejoined:
            continue
        entered, left = (tuple(map(resolve, labels)) for labels in (call.entered, call.left))
        carries = any(atom in streams for label in call.left for atom in leaves(label))
        if entered == left and carries and len(list(model.get_submodule(owner(call.module)).children())) > 1:
            found[call.module] = Branch(call.module, "layer", call.module, (), _enclosing(model, owner(call.module)))
    return list(found.values())


def _block(traced: Traced, model: nn.Module, addition: Addition, candidates: Sequence[Candidate]) -> Branch | None:
    exit_ = addition.exit
    inside = leaves(exit_.inside)
    axis = next((c for c in candidates if c.atom in inside and c.axis.kind in {"heads", "kv_groups", "ffn"}), None)
    if axis is None or exit_.is_convolution:
        return None
    end = owner(exit_.parameter)
    producers = _producers(traced, axis, end)
    if not producers:
        return None
    whole = common([*producers, end])
    last = {call.module: call for call in traced.calls}
    kind: BranchKind = "ffn" if axis.axis.kind == "ffn" else "attention"
    name = whole if kind == "attention" or whole.endswith("ffn") else f"{whole}.ffn"
    module = _removable(model, last, whole, end, producers, exit_)
    if module is None:
        return None
    feeder = _feeder(traced, model, last[module])
    return Branch(f"{name}.block", kind, module, (), _enclosing(model, whole), end, last[module].items, feeder)


def _feeder(traced: Traced, model: nn.Module, taker: ModuleCall) -> str:
    """The module whose result only this one reads (a norm before an attention block), if there is one."""
    if not all(within(reader, taker.module) for reader in traced.readers.get(taker.took, {""})):
        return ""
    makers = [call for call in traced.calls if call.gave == taker.took and call.took != call.gave]
    own = [
        call.module
        for call in makers
        if not within(taker.module, call.module) and not within(call.module, taker.module)
    ]
    simple = [path for path in own if path and not list(model.get_submodule(path).children())]
    return simple[0] if simple and sum(call.module == simple[0] for call in traced.calls) == 1 else ""


def _producers(traced: Traced, candidate: Candidate, end: str) -> list[str]:
    """The modules that make the units which this exit sums over: of a shared axis, those nearest to the exit."""
    makers = [owner(use.parameter) for use in traced.uses if candidate.atom in leaves(use.outside)]
    makers = [path for path in dict.fromkeys(makers) if path != end]
    nearness = {path: common([path, end]).count(".") for path in makers}
    return [path for path in makers if nearness[path] == max(nearness.values())]


def _removable(
    model: nn.Module, last: dict[str, ModuleCall], whole: str, end: str, producers: list[str], exit_: Use
) -> str | None:
    """The one module that gives the branch's result, or else the highest that holds its producers and nothing more."""
    if whole and whole in last and last[whole].exits == {exit_} and last[whole].items >= 0:
        return whole
    inner = common(producers)
    parent = owner(inner)
    while parent and not within(end, parent) and _only(model, parent, producers) and parent in last:
        inner, parent = parent, owner(parent)
    fits = inner in last and last[inner].items >= 0 and not within(end, inner)
    return inner if fits else None


def _only(model: nn.Module, path: str, producers: list[str]) -> bool:
    """Are all parameters of this module those of the producers?"""
    names = [f"{path}.{name}" for name, _ in model.get_submodule(path).named_parameters()]
    return all(any(within(name, producer) for producer in producers) for name in names)


def _enclosing(model: nn.Module, path: str) -> str | None:
    """The innermost list entry around a module."""
    return next((p for p in [path, *ancestors(path)] if p and is_entry(model, p)), None)
