"""One forward pass, watched: which dimensions of which parameters are one and the same width.

The pass runs under a `TorchDispatchMode`; each aten operator goes through its rule (`rules.RULES`). Beside the labels
the trace writes down how data flows: products with parameters, additions to a residual stream, module calls.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from archsmith.model import rules_layers  # noqa: F401  (fills the table)
from archsmith.model.labels import Label, Mismatch, freeze, fresh, renewed
from archsmith.model.rules import CONSTANT, Book, Call, find
from archsmith.model.running import main_outputs
from archsmith.model.wide import computed_wide

# Operators that give the same elements in another shape, type or place: the same stream of data.
_SAME_STREAM = frozenset({"view", "_unsafe_view", "_to_copy", "clone", "alias", "detach", "unsqueeze", "squeeze",
                          "permute", "transpose", "t", "contiguous", "native_dropout"})  # fmt: skip


# Operators that give pieces of a tensor: of a parameter, they are used as it is.
_PIECES = frozenset({"split", "split_with_sizes", "slice", "select", "unbind", "unsafe_split", "unsafe_chunk"})

# Operators whose result depends on how many positions there are.
AVERAGES = frozenset({"mean", "var", "std", "var_mean", "native_layer_norm", "_fused_rms_norm", "rms_norm"})


@dataclass(frozen=True)
class Use:
    """A product with a parameter: `inside` is summed over, `outside` comes out. `number` counts operators."""

    number: int
    parameter: str
    inside: Label
    outside: Label
    is_convolution: bool


@dataclass(frozen=True)
class Addition:
    """A branch that rejoins its residual stream; `exit` is the last product of the branch, `label` the width."""

    exit: Use
    label: Label


@dataclass(frozen=True)
class ModuleCall:
    """What went into a module and came out: the labels of its first tensor in and out, and the products it ends in.

    `rejoined`: additions to residual streams made inside. `items`: 0 where it gave a bare tensor, n where it gave a
    tuple of that tensor and n - 1 times None, -1 for anything else. `took` and `gave`: the streams of those tensors.
    """

    module: str
    entered: tuple[Label, ...]
    left: tuple[Label, ...]
    exits: frozenset[Use]
    rejoined: int
    items: int
    took: int
    gave: int


@dataclass(frozen=True)
class Entered:
    """A dimension of a tensor that a module was given, with a label that holds within that call alone."""

    module: str
    argument: str
    dim: int
    label: Label


@dataclass
class Traced:
    """All that one pass showed. `means`: of each operator in `AVERAGES` its name and what (dimension, label) it
    averages over, in the order in which they ran. `readers`: stream -> the modules whose operators read it."""

    parameters: dict[str, list[Label]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)
    entered: list[Entered] = field(default_factory=list)
    heads: list[Label] = field(default_factory=list)
    means: list[tuple[str, list[tuple[int, Label]]]] = field(default_factory=list)
    readers: dict[int, set[str]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    touched: set[str] = field(default_factory=set)


@dataclass
class _Flow:
    """Where a tensor comes from, as sets of stream numbers (bits): `before` all of them, `through` those that
    passed a product on the way; `exits` the products it is a rescaled sum of; `name` the parameter it views."""

    stream: int
    before: int = 0
    through: int = 0
    exits: frozenset[Use] = frozenset()
    name: str = ""
    constant: bool = False  # made of parameters alone, or of nothing


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no annotations there
    """Runs operators and keeps the book. Use through `trace`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.book, self.found, self.number = Book(), Traced(), 0
        self.flows: dict[int, _Flow] = {}
        # Modules being run, how many additions there were before, and the labels outside of what they were given.
        self.open_calls: list[tuple[str, int, list[tuple[Tensor, list[Label]]]]] = []
        for name, tensor in tensors.items():
            self.found.parameters[name] = self.book[tensor]
            self.flows[id(tensor)] = _Flow(stream=-1, name=name, constant=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        call = Call(func, args, kwargs or {}, out, tensors)
        self.book.means, self.book.contraction = [], None
        learn = find(func, call.name)
        try:
            if learn is None:
                raise Mismatch("no rule")
            learn(self.book, call)
        except (Mismatch, IndexError, TypeError, ValueError, KeyError, AttributeError) as error:
            if learn is None:
                self.found.unknown[call.name] += 1
            self._give_up(call, f"it passes {call.name}: {error}")
        if call.name in AVERAGES:
            self.found.means.append((call.name, self.book.means))
        self._flow(call)
        self.number += 1
        return out

    def _give_up(self, call: Call, reason: str) -> None:
        for tensor in call.tensors:
            self.book.freeze(tensor, reason)
        for out in tree_leaves(call.out):
            if isinstance(out, Tensor):
                self.book[out] = [fresh(n, reason) for n in out.shape]

    def flow(self, tensor: Tensor) -> _Flow:
        """The flow of a tensor; a new stream if it was not made by a traced operator."""
        if id(tensor) not in self.flows:
            self.book[tensor]  # keeps it alive
            self.flows[id(tensor)] = _Flow(stream=len(self.flows))
        return self.flows[id(tensor)]

    def enter(self, name: str, given: Mapping[str, Any]) -> list[tuple[Tensor, list[Label]]]:
        """Constants made outside a module (slopes of its heads) are within it what it makes of them: they get labels of
        their own, but for their last dimension (tables of positions). Returns the labels that they had."""
        before = []
        for argument, tensor in given.items():
            if not isinstance(tensor, Tensor) or tensor.dim() < 2:
                continue
            labels = self.book[tensor]
            inside = [*(renewed(label, CONSTANT) for label in labels[:-1]), labels[-1]]
            changed = [dim for dim, (new, old) in enumerate(zip(inside, labels, strict=True)) if new is not old]
            if changed:
                self.found.entered += [Entered(name, argument, dim, inside[dim]) for dim in changed]
                before.append((tensor, list(labels)))
                self.book[tensor] = inside
        return before

    def _flow(self, call: Call) -> None:
        sources = [self.flow(tensor) for tensor in call.tensors]
        self.found.touched.update(flow.name for flow in sources if flow.name)
        data = [flow for flow in sources if not flow.constant]
        if call.name not in _SAME_STREAM:
            for flow in data:
                self.found.readers.setdefault(flow.stream, set()).add(self.open_calls[-1][0] if self.open_calls else "")
        before = through = 0
        for flow in data:
            before |= flow.before | 1 << flow.stream
            through |= flow.through
        exits = self._rescaled(call, data)
        use = self._use(call)
        if use is not None:
            through, exits = before, frozenset({use})
        elif len(data) == 2 and call.name in {"add", "add_"}:
            exits = self._addition(call, data)
        name = sources[0].name if len(sources) == 1 and call.name in _SAME_STREAM | _PIECES else ""
        keeps_stream = call.name in _SAME_STREAM and len(data) == 1
        for out in tree_leaves(call.out):
            if isinstance(out, Tensor):
                stream = data[0].stream if keeps_stream else len(self.flows) + 1
                self.flows[id(out)] = _Flow(stream, before, through, exits, name, not data)

    def _rescaled(self, call: Call, data: list[_Flow]) -> frozenset[Use]:
        """The products that a result is a rescaled sum of: those of its one source, or of the one that is as wide as
        it where the others weigh its rows or pick them."""
        if len({flow.exits for flow in data}) == 1:
            return data[0].exits
        if call.name not in {"mul", "mul_", "index", "gather"}:
            return frozenset()
        width = call.first.shape[-1:]
        wide = [self.flow(t) for t in call.tensors if t.is_floating_point() and t.shape[-1:] == width]
        wide = [flow for flow in wide if not flow.constant]
        return wide[0].exits if len(wide) == 1 and width and width[0] > 1 else frozenset()

    def _use(self, call: Call) -> Use | None:
        contraction = self.book.contraction
        if contraction is None:
            return None
        name = self.flow(contraction.weight).name
        if not name or self.flow(contraction.data).name:
            return None
        use = Use(self.number, name, contraction.inside, contraction.outside, call.name.endswith("convolution"))
        self.found.uses.append(use)
        return use

    def _addition(self, call: Call, data: list[_Flow]) -> frozenset[Use]:
        """Is this sum a stream plus what products made of that same stream? What is it a sum of?"""
        for stream, branch in (data, data[::-1]):
            if branch.through >> stream.stream & 1 and branch.exits:
                labels = self.book[call.first]
                for leave in sorted(branch.exits, key=lambda use: use.number):
                    width = labels[1] if leave.is_convolution and len(labels) == 4 else labels[-1]
                    self.found.additions.append(Addition(leave, width))
                return frozenset()
        return data[0].exits | data[1].exits


def trace(model: nn.Module, inputs: Mapping[str, Tensor]) -> Traced:
    """Run `model(**inputs)` once without gradient and return what it showed. The model must be in eval mode."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    mode = Trace(tensors)
    for value in tree_leaves(dict(inputs)):
        if isinstance(value, Tensor):
            mode.book.freeze(value, "it comes in with the input")
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(_entering(mode, name), with_kwargs=True))
        handles.append(module.register_forward_hook(_leaving(mode, name), with_kwargs=True))
    try:
        with torch.no_grad(), computed_wide(model), mode:
            out = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    for tensor in main_outputs(out):
        mode.found.readers.setdefault(mode.flow(tensor).stream, set()).add("")
        for label in mode.book[tensor]:
            freeze(label, "it is the model's output")
    for tensor, label in mode.book.picks:
        flow = mode.flow(tensor)
        if flow.constant or flow.stream in mode.found.readers:  # some are made for their shape alone
            freeze(label, "one of it is picked by number")
    mode.found.heads = mode.book.heads
    return mode.found


def first_tensor(*values: Any) -> Tensor | None:
    """The first floating tensor among nested values: what a module mainly takes or gives."""
    return next((x for x in tree_leaves(values) if isinstance(x, Tensor) and x.is_floating_point()), None)


def _entering(mode: Trace, name: str) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        before = mode.enter(name, _named(module, args, kwargs))
        mode.open_calls.append((name, len(mode.found.additions), before))

    return hook


def _leaving(mode: Trace, name: str) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        entered, left = first_tensor(args, kwargs), first_tensor(out)
        _, before, outside = mode.open_calls.pop()
        for tensor, labels in outside:
            mode.book[tensor] = labels
        if entered is None or left is None:
            return
        mode.found.calls.append(
            ModuleCall(
                module=name,
                entered=tuple(mode.book[entered]),
                left=tuple(mode.book[left]),
                exits=mode.flow(left).exits,
                rejoined=len(mode.found.additions) - before,
                items=_items(out),
                took=mode.flow(entered).stream,
                gave=mode.flow(left).stream,
            )
        )

    return hook


def _named(module: nn.Module, args: Any, kwargs: Any) -> Mapping[str, Any]:
    """What a module was given, by argument; nothing where it does not say their names."""
    try:
        return inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {}


def _items(out: Any) -> int:
    if isinstance(out, Tensor):
        return 0
    if isinstance(out, tuple) and isinstance(out[0], Tensor) and all(other is None for other in out[1:]):
        return len(out)
    return -1
