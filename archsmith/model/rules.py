"""How labels travel through aten operators: one table, operator name -> rule.

A rule reads the labels of an operator's inputs from the book, learns what the operator proves equal, and writes the
labels of its outputs. What a rule cannot follow it raises as `Mismatch`; the trace then freezes all that was touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from archsmith.model.labels import Label, Mismatch, equate, freeze, fresh, join, regroup, segments, size


@dataclass(frozen=True)
class Contraction:
    """A matrix product or convolution: `weight` (a parameter or a view of one) sums over `inside`, gives `outside`."""

    data: Tensor
    weight: Tensor
    inside: Label
    outside: Label


class Book:
    """The labels of every tensor seen, by identity. Tensors are kept alive, so that an identity stays unique."""

    def __init__(self) -> None:
        self._labels: dict[int, list[Label]] = {}
        self._alive: list[Tensor] = []
        self.heads: list[Label] = []  # dimensions that attention runs over one by one
        self.means: list[tuple[int, Label]] = []  # of the operator at hand: (dimension, label) it averages over
        self.picks: list[tuple[Tensor, Label]] = []  # what was picked by number, and out of which dimension
        self.contraction: Contraction | None = None  # of the operator at hand

    def __getitem__(self, tensor: Tensor) -> list[Label]:
        if id(tensor) not in self._labels:
            self[tensor] = [fresh(n) for n in tensor.shape]
        return self._labels[id(tensor)]

    def __setitem__(self, tensor: Tensor, labels: Iterable[Label]) -> None:
        labels = list(labels)
        if [size(label) for label in labels] != list(tensor.shape):
            raise Mismatch(f"labels of {[size(label) for label in labels]} for a tensor of {list(tensor.shape)}")
        self._labels[id(tensor)] = labels
        self._alive.append(tensor)

    def __contains__(self, tensor: Tensor) -> bool:
        return id(tensor) in self._labels

    def freeze(self, tensor: Tensor, reason: str) -> None:
        """Freeze every dimension of a tensor."""
        for label in self[tensor]:
            freeze(label, reason)


@dataclass(frozen=True)
class Call:
    """One operator as it ran. `arg(i)` is the i-th argument of its schema, by position, name or default."""

    operator: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    tensors: list[Tensor] = field(default_factory=list)

    def arg(self, index: int) -> Any:
        if index < len(self.args):
            return self.args[index]
        spec = self.operator._schema.arguments[index]
        return self.kwargs.get(spec.name, spec.default_value)

    @property
    def name(self) -> str:
        return str(self.operator.overloadpacket._qualified_op_name.split("::")[-1])

    @property
    def first(self) -> Tensor:
        """The first output tensor."""
        found: Tensor = self.out if isinstance(self.out, Tensor) else self.out[0]
        return found


CONSTANT = "meets constants made in the forward pass"
Rule = Callable[[Book, Call], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule in the table under each of these operator names."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def find(operator: torch._ops.OpOverload, name: str) -> Rule | None:
    """The rule of an operator: its own, or the broadcast rule if torch tags it pointwise; None if there is neither."""
    if name in RULES:
        return RULES[name]
    return broadcast if torch.Tag.pointwise in operator.tags else None


def at(index: int, dims: int) -> int:
    """A dimension counted from the front."""
    return index % dims if dims else 0


@rule("clone", "_to_copy", "detach", "alias", "contiguous", "copy_", "copy", "zeros_like", "ones_like", "full_like",
      "empty_like", "fill_", "native_dropout", "where", "masked_fill", "rand_like",
      "randn_like", "tril", "triu", "zero_", "_prelu_kernel", "floor_divide", "floor_divide_")  # fmt: skip
def broadcast(book: Book, call: Call) -> None:
    """Elementwise with NumPy's broadcasting: dimensions that meet are equal, size one stretches."""
    out = call.first
    labels: list[Label | None] = [None] * out.dim()
    for tensor in call.tensors:
        offset = out.dim() - tensor.dim()
        for i, label in enumerate(book[tensor]):
            if offset + i < 0:
                continue
            if tensor.shape[i] != out.shape[offset + i]:
                if tensor.shape[i] != 1:
                    raise Mismatch("an operand does not broadcast")
                continue
            seen = labels[offset + i]
            if seen is None:
                labels[offset + i] = label
            else:
                equate(seen, label)
    book[out] = [fresh(n) if label is None else label for n, label in zip(out.shape, labels, strict=True)]


@rule("arange", "linspace", "eye", "lift_fresh", "lift", "scalar_tensor", "rand", "randn", "randint")
def constant(book: Book, call: Call) -> None:
    """Values that know their place (positions, identity matrices): nothing along them may be cut."""
    if call.tensors and call.tensors[0] in book:
        book[call.first] = book[call.tensors[0]]
    else:
        book[call.first] = [fresh(n, CONSTANT) for n in call.first.shape]


@rule("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "empty_strided",
      "_local_scalar_dense", "item", "is_nonzero", "equal", "empty_permuted")  # fmt: skip
def uniform(book: Book, call: Call) -> None:
    """The same value everywhere: free to become any width."""
    for out in tree_leaves(call.out):
        if isinstance(out, Tensor):
            book[out] = [fresh(n) for n in out.shape]


@rule("view", "_unsafe_view", "reshape", "_reshape_alias")
def view(book: Book, call: Call) -> None:
    book[call.out] = regroup(book[call.arg(0)], call.out.shape)


@rule("t", "t_")
def t(book: Book, call: Call) -> None:
    book[call.out] = book[call.arg(0)][::-1]


@rule("transpose", "transpose_")
def transpose(book: Book, call: Call) -> None:
    labels = list(book[call.arg(0)])
    i, j = (at(call.arg(k), len(labels)) for k in (1, 2))
    labels[i], labels[j] = labels[j], labels[i]
    book[call.out] = labels


@rule("permute")
def permute(book: Book, call: Call) -> None:
    labels = book[call.arg(0)]
    book[call.out] = [labels[i] for i in call.arg(1)]


@rule("unsqueeze")
def unsqueeze(book: Book, call: Call) -> None:
    labels = list(book[call.arg(0)])
    labels.insert(at(call.arg(1), len(labels) + 1), fresh(1))
    book[call.out] = labels


@rule("squeeze")
def squeeze(book: Book, call: Call) -> None:
    tensor = call.arg(0)
    chosen = call.arg(1) if len(call.args) > 1 else range(tensor.dim())
    dims = {at(d, tensor.dim()) for d in (chosen if isinstance(chosen, Sequence | range) else [chosen])}
    book[call.out] = [label for i, label in enumerate(book[tensor]) if i not in dims or tensor.shape[i] != 1]


@rule("expand")
def expand(book: Book, call: Call) -> None:
    tensor, out = call.arg(0), call.out
    offset = out.dim() - tensor.dim()
    book[out] = [
        book[tensor][i - offset] if i >= offset and tensor.shape[i - offset] == n else fresh(n)
        for i, n in enumerate(out.shape)
    ]


@rule("repeat")
def repeat(book: Book, call: Call) -> None:
    """Tiling: along a tiled dimension the label is copies x what was there."""
    tensor, times, out = call.arg(0), call.arg(1), call.out
    offset = out.dim() - tensor.dim()
    labels = [fresh(1)] * offset + book[tensor]
    book[out] = [label if n == 1 else fresh(n) + label for n, label in zip(times, labels, strict=True)]


@rule("select")
def select(book: Book, call: Call) -> None:
    labels = list(book[call.arg(0)])
    book.picks.append((call.out, labels.pop(at(call.arg(1), len(labels)))))
    book[call.out] = labels


@rule("slice")
def slice_(book: Book, call: Call) -> None:
    tensor, out = call.arg(0), call.out
    labels = list(book[tensor])
    dim = at(call.arg(1), len(labels))
    total, kept = tensor.shape[dim], out.shape[dim]
    if kept != total:
        start, step = call.arg(2) or 0, call.arg(4)
        start = min(max(start + total if start < 0 else start, 0), total)
        if step == 1:
            pieces = [start, kept, total - start - kept]
            kept_at = sum(1 for n in pieces[:1] if n)
            labels[dim] = segments(labels[dim], [n for n in pieces if n])[kept_at] if kept else fresh(0)
        elif total % step == 0 and start < step and kept == total // step:
            labels[dim], inner = regroup([labels[dim]], [kept, step])  # every step-th: places of a pattern, which stays
            freeze(inner, "it is read in steps")
        else:
            freeze(labels[dim], "it is read in steps")
            labels[dim] = fresh(kept, "it is read in steps")
    book[out] = labels


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk")
def split(book: Book, call: Call) -> None:
    labels = book[call.arg(0)]
    dim = at(call.arg(2), len(labels))
    pieces = segments(labels[dim], [out.shape[dim] for out in call.out])
    for out, piece in zip(call.out, pieces, strict=True):
        book[out] = [*labels[:dim], piece, *labels[dim + 1 :]]


@rule("unbind")
def unbind(book: Book, call: Call) -> None:
    labels = list(book[call.arg(0)])
    freeze(labels.pop(at(call.arg(1), len(labels))), "it is taken apart one by one")
    for out in call.out:
        book[out] = labels


@rule("cat")
def cat(book: Book, call: Call) -> None:
    tensors = [tensor for tensor in call.arg(0) if tensor.numel()]
    if not tensors:
        book[call.out] = [fresh(n) for n in call.out.shape]
        return
    dim = at(call.arg(1), call.out.dim())
    labels = list(book[tensors[0]])
    for tensor in tensors[1:]:
        for i, label in enumerate(book[tensor]):
            if i != dim:
                equate(labels[i], label)
    labels[dim] = join([book[tensor][dim] for tensor in tensors])
    book[call.out] = labels


@rule("stack")
def stack(book: Book, call: Call) -> None:
    tensors = call.arg(0)
    labels = list(book[tensors[0]])
    for tensor in tensors[1:]:
        for label, other in zip(labels, book[tensor], strict=True):
            equate(label, other)
    labels.insert(at(call.arg(1), call.out.dim()), fresh(len(tensors), "a fixed number of tensors is stacked"))
    book[call.out] = labels


@rule("mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "any", "all", "argmax", "argmin",
      "norm", "linalg_vector_norm", "logsumexp", "count_nonzero")  # fmt: skip
def reduce(book: Book, call: Call) -> None:
    """Reductions: what is reduced disappears. Means are remembered, since a cut changes how many they divide by."""
    tensor = call.arg(0)
    index = {"norm": 2, "linalg_vector_norm": 2}.get(call.name, 1)
    names = [argument.name for argument in call.operator._schema.arguments]
    chosen = call.arg(index) if len(names) > index and names[index] == "dim" else None
    keep = call.arg(names.index("keepdim")) if "keepdim" in names else False
    dims = range(tensor.dim()) if chosen is None or chosen == [] else [chosen] if isinstance(chosen, int) else chosen
    dims = {at(d, tensor.dim()) for d in dims}
    if call.name in {"mean", "var", "std", "var_mean"}:
        book.means.extend((i, book[tensor][i]) for i in dims)
    if call.name in {"argmax", "argmin", "max", "min"} and not isinstance(call.out, Tensor | tuple):
        raise Mismatch("an unexpected reduction")
    if call.name in {"argmax", "argmin"} or (call.name in {"max", "min"} and isinstance(call.out, tuple)):
        for i in dims:
            freeze(book[tensor][i], "its units are picked by number")
    labels = [fresh(1) if i in dims else label for i, label in enumerate(book[tensor])]
    for out in tree_leaves(call.out):
        book[out] = labels if keep else [label for i, label in enumerate(labels) if i not in dims]
