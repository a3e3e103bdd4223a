"""What a tensor dimension is made of: atoms, their products and their concatenations.

A dimension carries a *label*, a product of atoms with the outermost first: 384 = 12 heads x 32. `view` splits and
merges such products. An atom may be a concatenation of labels (`parts`: fused query, key and value), may be known to
equal a product (`factors`) or another atom (`parent`, a union-find forest), and may be frozen for a reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np


class Mismatch(Exception):
    """Two labels, or a label and a shape, cannot be brought together. The trace then freezes what was touched."""


class Atom:
    """One free width. Everything that is learned about it during the trace is written here."""

    __slots__ = ("factors", "parent", "parts", "reason", "size")

    def __init__(self, size: int, reason: str = "") -> None:
        self.size = size
        self.parent: Atom | None = None
        self.factors: tuple[Atom, ...] = ()
        self.parts: list[Label] = []
        self.reason = reason

    @property
    def frozen(self) -> bool:
        """A frozen atom can never change its width."""
        return bool(self.reason)


Label = tuple[Atom, ...]


def fresh(size: int, reason: str = "") -> Label:
    """A label about which nothing is known but its size.

    >>> size(fresh(12))
    12
    """
    return (Atom(size, reason),)


def root(atom: Atom) -> Atom:
    """The atom that stands for all that were found equal to this one."""
    while atom.parent is not None:
        if atom.parent.parent is not None:
            atom.parent = atom.parent.parent
        atom = atom.parent
    return atom


def resolve(label: Label) -> Label:
    """The atoms that a label is made of as far as is known now, without those of size one."""
    atoms: list[Atom] = []
    for atom in map(root, label):
        if atom.factors:
            atoms.extend(resolve(atom.factors))
        elif atom.size != 1:
            atoms.append(atom)
    return tuple(atoms)


def size(label: Label) -> int:
    """How many positions a label has."""
    return math.prod(atom.size for atom in label)


def freeze(label: Label, reason: str) -> None:
    """No atom of this label may change its width; the first reason given stays."""
    for atom in resolve(label):
        if not atom.reason:
            atom.reason = reason
        for part in atom.parts:
            freeze(part, atom.reason)


def leaves(label: Label) -> list[Atom]:
    """Every atom of a label, those inside concatenations too."""
    found: list[Atom] = []
    for atom in resolve(label):
        if atom.parts:
            for part in atom.parts:
                found.extend(leaves(part))
        else:
            found.append(atom)
    return found


def split(atom: Atom, outer: int, inner: int) -> None:
    """Learn that `atom` is outer x inner. A concatenation splits where every part is a multiple of inner."""
    if atom.size != outer * inner:
        raise Mismatch(f"{atom.size} is not {outer} x {inner}")
    above, below = Atom(outer, atom.reason), Atom(inner, atom.reason)
    if atom.parts:
        if any(size(part) % inner for part in atom.parts):
            raise Mismatch(f"a concatenation of {[size(part) for part in atom.parts]} does not split by {inner}")
        halves = [regroup([part], [size(part) // inner, inner]) for part in atom.parts]
        above.parts = [high for high, _ in halves]
        for _, low in halves:
            equate((below,), low)
    atom.factors = (above, below)


def equate(first: Label, second: Label) -> None:
    """Learn that two dimensions of equal size are the same one, position by position.

    >>> width, product = fresh(384), fresh(12) + fresh(32)
    >>> equate(width, product); [atom.size for atom in resolve(width)]
    [12, 32]
    """
    if size(first) != size(second):
        raise Mismatch(f"sizes {size(first)} and {size(second)} differ")
    left, right = list(resolve(first)), list(resolve(second))
    while left and right:
        a, b = left[0], right[0]
        if a.size == b.size:
            left.pop(0), right.pop(0)
            _unite(a, b)
        else:
            long, short = (a, b) if a.size > b.size else (b, a)
            if long.size % short.size:
                raise Mismatch(f"{long.size} is not a multiple of {short.size}")
            split(long, short.size, long.size // short.size)
        # Uniting may have split an atom that waits in either queue.
        left, right = list(resolve(tuple(left))), list(resolve(tuple(right)))


def _unite(a: Atom, b: Atom) -> None:
    a, b = root(a), root(b)
    if a is b:
        return
    if a.parts and b.parts:
        ends = sorted({*accumulate(map(size, a.parts)), *accumulate(map(size, b.parts))})
        sizes = [end - start for start, end in pairwise([0, *ends])]
        pairs = list(zip(segments((a,), sizes), segments((b,), sizes), strict=True))
        b.parent = a
        for one, other in pairs:
            equate(one, other)
    elif b.parts:
        a, b = b, a
        b.parent = a
    else:
        b.parent = a
    reason = a.reason or b.reason
    if reason:
        a.reason = reason
        freeze((a,), reason)


def renewed(label: Label, reason: str) -> Label:
    """The label with a new atom for each that is frozen for this reason, all of it; the same label where none is.

    >>> heads, place = fresh(12, "a constant"), fresh(8, "the input")
    >>> [atom.reason for atom in renewed(place + heads, "a constant")]
    ['the input', '']
    """
    atoms = resolve(label)
    known = [all(leaf.reason == reason for leaf in leaves((atom,))) for atom in atoms]
    if not any(known):
        return label
    return tuple(Atom(atom.size) if old else atom for atom, old in zip(atoms, known, strict=True))


def regroup(labels: Sequence[Label], shape: Sequence[int]) -> list[Label]:
    """The labels after `view(shape)`: the same atoms in the same order, grouped anew, split where needed.

    >>> flat = fresh(384)
    >>> [size(label) for label in regroup([flat], [12, 32])], [atom.size for atom in resolve(flat)]
    ([12, 32], [12, 32])
    """
    pool = [atom for label in labels for atom in resolve(label)]
    grouped: list[Label] = []
    for wanted in shape:
        taken: list[Atom] = []
        while wanted > 1:
            pool = list(resolve(tuple(pool)))
            if not pool:
                raise Mismatch("a view needs more positions than there are")
            atom = pool[0]
            if wanted % atom.size == 0:
                taken.append(pool.pop(0))
                wanted //= atom.size
            elif atom.size % wanted == 0:
                split(atom, wanted, atom.size // wanted)
            else:
                raise Mismatch(f"{atom.size} does not regroup by {wanted}")
        grouped.append(tuple(taken) or fresh(1))
    return grouped


def join(labels: Sequence[Label]) -> Label:
    """The label of a concatenation.

    >>> [size(part) for part in segments(join([fresh(3), fresh(5)]), [3, 5])]
    [3, 5]
    """
    if len(labels) == 1:
        return labels[0]
    whole = Atom(sum(map(size, labels)))
    whole.parts = list(labels)
    return (whole,)


def segments(label: Label, sizes: Sequence[int]) -> list[Label]:
    """The labels of consecutive pieces of a dimension, in the order of `sizes`, which sum to its size."""
    if sum(sizes) != size(label):
        raise Mismatch(f"pieces {list(sizes)} of {size(label)} positions")
    if len(sizes) == 1:
        return [label]
    atoms = resolve(label)
    if not atoms:
        raise Mismatch("a dimension of size one has no pieces")
    outer, inner = atoms[0], atoms[1:]
    step = size(inner)
    if any(wanted % step for wanted in sizes):
        raise Mismatch(f"pieces {list(sizes)} cut through a product with {step} inside")
    wanted = [piece // step for piece in sizes]
    if not outer.parts:
        outer.parts = [fresh(piece, outer.reason) for piece in wanted]
    return [piece + inner for piece in _pieces(outer, wanted)]


def _pieces(atom: Atom, sizes: Sequence[int]) -> list[Label]:
    """Pieces of a concatenation; a part that straddles a boundary is cut in two."""
    waiting = list(atom.parts)
    found: list[Label] = []
    for wanted in sizes:
        taken: list[Label] = []
        while wanted > 0:
            part = waiting.pop(0)
            if size(part) > wanted:
                part, rest = segments(part, [wanted, size(part) - wanted])
                waiting.insert(0, rest)
            taken.append(part)
            wanted -= size(part)
        found.append(join(taken) if taken else fresh(0))
    return found


def units(label: Label) -> dict[Atom, np.ndarray]:
    """For every atom inside a label: which of its units each position belongs to, (positions,) int64, -1 for none.

    >>> heads, width = fresh(2), fresh(3)
    >>> units(heads + width)[heads[0]].tolist()
    [0, 0, 0, 1, 1, 1]
    """
    atoms = resolve(label)
    position = np.arange(size(atoms))
    found: dict[Atom, np.ndarray] = {}
    inner = size(atoms)
    for atom in atoms:
        inner //= atom.size
        coordinate = position // inner % atom.size
        for leaf, unit in (_inside(atom) if atom.parts else {atom: np.arange(atom.size)}).items():
            here = unit[coordinate]
            if leaf in found:  # the same atom twice in one dimension (an outer product) has no single unit a position
                freeze((leaf,), "it runs twice through one dimension")
            found[leaf] = here
    return found


def _inside(atom: Atom) -> dict[Atom, np.ndarray]:
    found: dict[Atom, np.ndarray] = {}
    start = 0
    for part in filter(size, atom.parts):  # a slice may be empty
        for leaf, unit in units(part).items():
            whole = found.setdefault(leaf, np.full(atom.size, -1))
            whole[start : start + size(part)] = unit
        start += size(part)
    return found


def positions(unit: np.ndarray, count: int) -> np.ndarray:
    """The index matrix (count units, positions of each) of a unit array as `units` gives it; `Mismatch` if ragged."""
    used = np.flatnonzero(unit >= 0)
    order = used[np.argsort(unit[used], kind="stable")]
    if len(order) % count or not np.array_equal(
        np.bincount(unit[used], minlength=count), [len(order) // count] * count
    ):
        raise Mismatch("its units have different numbers of positions")
    return order.reshape(count, -1).astype(np.int64)
