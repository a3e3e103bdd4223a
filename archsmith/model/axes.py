"""From labels to axes: which unfrozen atoms run through which parameters, what kind they are and what to call them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from archsmith.model.anatomy import Axis, AxisKind, Entry, Place
from archsmith.model.labels import Atom, Label, Mismatch, freeze, leaves, positions, resolve, root, size, units
from archsmith.model.rules import CONSTANT
from archsmith.model.share import ancestors, common, is_entry, owner
from archsmith.model.trace import Traced, Use


@dataclass(frozen=True, eq=False)
class Candidate:
    """An axis that the trace proposes. `multiples`: the widths that its units make up together with its neighbours
    in one dimension (12 heads, 384 = 12 heads x 32), where a whole number baked into a module may come from."""

    axis: Axis
    atom: Atom
    multiples: frozenset[int]


def propose(traced: Traced, model: nn.Module) -> tuple[list[Candidate], dict[str, str]]:
    """The axes that a trace found, in the order of the model's parameters, and "parameter[dim]" -> why it is frozen."""
    atoms = _places(traced)
    frozen = _frozen(traced)
    roles, entries = _Roles(traced), _entries(traced)
    candidates: list[Candidate] = []
    for atom, places in atoms.items():
        if atom.frozen:
            continue
        if len(places) < 2:
            frozen[f"{places[0].parameter}[{places[0].dim}]"] = "nothing else depends on this width"
            continue
        kind = roles.kind(atom)
        if atom in entries and kind not in ("heads", "kv_groups"):
            frozen[f"{places[0].parameter}[{places[0].dim}]"] = CONSTANT
            continue
        axis = Axis(
            roles.name(atom, kind, places),
            kind,
            atom.size,
            tuple(places),
            entry_of(model, places),
            entries=tuple(entries.get(atom, ())),
        )
        candidates.append(Candidate(axis, atom, _multiples(traced, atom)))
    return _distinct(candidates), frozen


def entry_of(model: nn.Module, places: Iterable[Place]) -> str | None:
    """The innermost list entry that holds all these places."""
    path = common([owner(place.parameter) for place in places])
    return next((p for p in [path, *ancestors(path)] if p and is_entry(model, p)), None)


def _places(traced: Traced) -> dict[Atom, list[Place]]:
    """Every atom that runs through a parameter, with its places."""
    found: dict[Atom, list[Place]] = {}
    for name, labels in traced.parameters.items():
        for dim, label in enumerate(labels if all(map(size, labels)) else []):  # register tokens: there may be none
            for atom, unit in units(label).items():
                if atom.frozen:
                    continue
                if name not in traced.touched:
                    freeze((atom,), "it is not used in the forward pass")
                    continue
                try:
                    found.setdefault(atom, []).append(Place(name, dim, positions(unit, atom.size)))
                except Mismatch as error:
                    freeze((atom,), str(error))
    return found


def _entries(traced: Traced) -> dict[Atom, list[Entry]]:
    """Every atom that enters a module in a tensor made outside, with where."""
    found: dict[Atom, list[Entry]] = {}
    for entered in traced.entered:
        atoms = resolve(entered.label)
        for place, atom in enumerate(atoms):
            entry = Entry(entered.module, entered.argument, entered.dim, size(atoms[place + 1 :]))
            entries = found.setdefault(atom, [])
            if entry not in entries:  # a module may run several times
                entries.append(entry)
    return found


def _frozen(traced: Traced) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for name, labels in traced.parameters.items():
        for dim, label in enumerate(labels):
            atoms = leaves(label)
            if atoms and all(atom.frozen for atom in atoms):
                reasons[f"{name}[{dim}]"] = atoms[0].reason
    return reasons


def _multiples(traced: Traced, atom: Atom) -> frozenset[int]:
    found = {atom.size}

    def visit(label: Label) -> None:
        product = resolve(label)
        for outer in product:
            for part in outer.parts:
                visit(part)
        if atom in product:
            here = {atom.size}
            for other in product:
                if other is not atom:
                    here |= {n * other.size for n in here}
            found.update(here)

    for labels in traced.parameters.values():
        for label in labels:
            visit(label)
    return frozenset(found)


class _Roles:
    """What each atom does in the network, looked up by atom."""

    def __init__(self, traced: Traced) -> None:
        self.producers: dict[Atom, list[Use]] = {}
        self.consumers: dict[Atom, list[Use]] = {}
        for use in traced.uses:
            for atom in leaves(use.outside):
                self.producers.setdefault(atom, []).append(use)
            for atom in leaves(use.inside):
                self.consumers.setdefault(atom, []).append(use)
        self.streams: dict[Atom, list[Use]] = {}
        for addition in traced.additions:
            for atom in leaves(addition.label):
                self.streams.setdefault(atom, []).append(addition.exit)
        self.exits = {addition.exit.number for addition in traced.additions}
        self.heads: dict[Atom, AxisKind] = {}
        self.inner_heads: set[Atom] = set()
        for label in traced.heads:
            free = [atom for atom in leaves(label) if not atom.frozen]
            for i, atom in enumerate(free):
                self.heads[atom] = "kv_groups" if i == 0 and len(free) > 1 else self.heads.get(atom, "heads")
            self.inner_heads.update(free[1:])

    def kind(self, atom: Atom) -> AxisKind:
        producers, consumers = self.producers.get(atom, []), self.consumers.get(atom, [])
        if atom in self.streams:
            return "residual"
        if atom in self.heads and producers and consumers:
            return self.heads[atom]
        # A convolution of each channel by itself.
        through = [use for use in producers if use in consumers and use.is_convolution]
        producers, consumers = ([use for use in uses if use not in through] for uses in (producers, consumers))
        exits = [use for use in consumers if use.number in self.exits]
        if any(use.is_convolution for use in producers + consumers) or (through and exits != consumers):
            return "channels"
        # In a product (heads x width of a head) it is no hidden layer's width but one inside every head.
        if producers and exits and all(len(resolve(use.inside)) == 1 for use in consumers):
            return "ffn"
        return "width"

    def name(self, atom: Atom, kind: AxisKind, places: list[Place]) -> str:
        """A readable name from the paths of the modules it lies in."""
        ends = self.producers.get(atom, []) + self.consumers.get(atom, [])
        prefix = common([owner(use.parameter) for use in ends] or [owner(place.parameter) for place in places])
        if kind == "residual":
            return "residual." + common([owner(use.parameter) for use in self.streams[atom]])
        if kind in {"heads", "kv_groups"}:
            return f"{prefix}.heads_per_group" if atom in self.inner_heads else f"{prefix}.{kind}"
        if kind == "ffn":
            return prefix if prefix.endswith("ffn") else f"{prefix}.ffn"
        first = self.producers.get(atom, [])
        return f"{owner(first[0].parameter) if first else owner(places[0].parameter)}.{kind}"


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Give every axis its own name; the only residual stream is called just that."""
    streams = sum(c.axis.kind == "residual" for c in candidates)
    names: Counter[str] = Counter()
    renamed: list[Candidate] = []
    for candidate in candidates:
        axis = candidate.axis
        name = "residual" if axis.kind == "residual" and streams == 1 else axis.name.strip(".")
        names[name] += 1
        name = name if names[name] == 1 else f"{name}#{names[name]}"
        renamed.append(Candidate(replace(axis, name=name), root(candidate.atom), candidate.multiples))
    return renamed
