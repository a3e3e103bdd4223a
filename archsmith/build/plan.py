"""A network without choices, planned: what each module gets and gives, before any is made.

Shapes come from running each module once on the meta device; what a module of these options makes of this input is
kept, so that planning ten thousand architectures makes each module once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from archsmith.build.pieces import KINDS, made
from archsmith.build.signal import Signal
from archsmith.errors import BadInput, first_line
from archsmith.space import JSON

JOINS = ("add", "attend", "concat", "multiply")
INPUT = "in"
MIXED = "mixed"  # {"mixed": [choice, [[value, part], ...]]}: the sum of parts, each times the weight of its value
PICKED = "picked"  # {"picked": [value, part]}: the part that a choice took, whose place is named after the value


@dataclass(frozen=True)
class Piece:
    """One module: its kind, its options as JSON, what it gets and gives, and where it stands."""

    kind: str
    options: str
    gets: Signal
    gives: Signal
    path: str


@dataclass(frozen=True)
class Chain:
    """Parts one after another."""

    parts: tuple[Part, ...]
    gives: Signal


@dataclass(frozen=True)
class Joined:
    """Parts side by side on the same input, or on one each, joined; `heads` of attention."""

    how: str
    parts: tuple[Part, ...]
    gives: Signal
    heads: int = 1


@dataclass(frozen=True)
class Weighed:
    """A part times the weight of a value of a choice."""

    choice: str
    value: str
    part: Part
    gives: Signal


@dataclass(frozen=True)
class Node:
    """A place of a graph: from which places its parts read, and how what they give is joined."""

    name: str
    reads: tuple[str, ...]
    joined: Joined


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which they are computed; the last one named is the output."""

    inputs: int
    nodes: tuple[Node, ...]
    gives: Signal


Part = Piece | Chain | Joined | Weighed | Graph


def planned(static: JSON, signal: Signal, path: str = "", prune: bool = False) -> Part:
    """The plan of a network for one input signal; `prune` leaves out nodes of graphs that no output needs.

    Raises `BadInput` where a module cannot run on what it gets, with its place, its input and the reason.
    """
    return _part(static, (signal,), path or "network", prune)


def pieces(part: Part) -> Iterator[Piece]:
    """Every module of a plan, in order."""
    return (each for each in parts_of(part) if isinstance(each, Piece))


def parts_of(part: Part) -> Iterator[Part]:
    """A part and all that it is made of, in order."""
    yield part
    if isinstance(part, Graph):
        for node in part.nodes:
            yield from parts_of(node.joined)
    elif isinstance(part, Weighed):
        yield from parts_of(part.part)
    elif not isinstance(part, Piece):
        for each in part.parts:
            yield from parts_of(each)


def _part(spec: JSON, signals: tuple[Signal, ...], path: str, prune: bool) -> Part:
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return _chain(spec, signals, path, prune)
    kind, options = _word(spec, path)
    if kind == PICKED:
        if not isinstance(options, list) or len(options) != 2:
            raise BadInput("what is picked is a value and its part", repr(options)[:60], path)
        return _part(options[1], signals, f"{path}={options[0]}", prune)
    if kind == MIXED:
        return _mixed(options[0], options[1], signals, path, prune)
    if kind == "graph":
        return _graph(options, signals, path, prune)
    signal = signals[0]
    if len(signals) > 1:
        raise BadInput("only a graph reads several inputs", f"{kind} gets {len(signals)}", path)
    if kind in JOINS:
        if not isinstance(options, list) or not options:
            raise BadInput(f"{kind} has a list of parts", repr(options)[:60], path)
        parts = [_part(each, signals, f"{path}/{kind}{i}", prune) for i, each in enumerate(options)]
        return _joined(kind, [parts[i] for i in _counting(kind, parts)], path)
    if kind == "residual":
        inner = _part(options, signals, f"{path}/residual", prune)
        return _joined("add", [_shortcut(signal, inner.gives, path), inner], path)
    return _piece(kind, options, signal, path)


def _mixed(
    choice: str, options: Sequence[tuple[str, JSON]], signals: tuple[Signal, ...], path: str, prune: bool
) -> Joined:
    """Zeros stay in the sum: of a sample that takes one of the parts, it may be all there is."""
    parts = [(value, _part(part, signals, f"{path}={value}", prune)) for value, part in options]
    return _joined("add", [Weighed(choice, value, part, part.gives) for value, part in parts], path)


def _chain(spec: Sequence[JSON], signals: tuple[Signal, ...], path: str, prune: bool) -> Part:
    parts: list[Part] = []
    for i, each in enumerate(spec):
        part = _part(each, signals, f"{path}/{i}", prune)
        parts += part.parts if isinstance(part, Chain) else [part]
        signals = (part.gives,)
    return parts[0] if len(parts) == 1 else Chain(tuple(parts), signals[0])


def _joined(how: str, parts: Sequence[Part], path: str, heads: Any = 1) -> Joined:
    gives = [part.gives for part in parts]
    if not gives:
        raise BadInput("a join has at least one part", "none", path)
    first = gives[0]
    if how not in JOINS:
        raise BadInput("a join is one that is known", repr(how), path, f"there are: {', '.join(JOINS)}")
    if how == "attend":
        return _attending(parts, path, heads)
    if how != "concat":
        if any(other != first for other in gives):
            law = "parts that are added or multiplied give the same shape"
            raise BadInput(law, ", ".join(map(str, gives)), path)
        return Joined(how, tuple(parts), first)
    if any(other.around != first.around for other in gives):
        raise BadInput("parts that are put together differ in channels alone", ", ".join(map(str, gives)), path)
    return Joined(how, tuple(parts), first.with_channels(sum(other.channels for other in gives)))


def _attending(parts: Sequence[Part], path: str, heads: Any) -> Joined:
    """What each place of the first part asks of the places of the second, whose answers are the third's (Vaswani et al.
    2017)."""
    told = ", ".join(str(part.gives) for part in parts)
    if len(parts) != 3 or any(len(part.gives.shape) != 2 for part in parts):
        raise BadInput("attention has queries, keys and values, three sequences", told, path)
    queries, keys, values = (part.gives for part in parts)
    if queries.channels != keys.channels or keys.around != values.around:
        raise BadInput("queries are as wide as keys, and there are as many keys as values", told, path)
    if type(heads) is not int or heads < 1 or queries.channels % heads or values.channels % heads:
        raise BadInput("heads share the channels of queries and of values", f"{heads!r} for {told}", path)
    gives = queries.with_channels(values.channels)
    return Joined("attend", tuple(parts), gives, heads)


def _graph(spec: Mapping[str, JSON], signals: tuple[Signal, ...], path: str, prune: bool) -> Graph:
    """{"nodes": [{"name", "from": [...], "of": a part for all or a list of one each, "join": how, "heads": number}],
    "output": name}.

    Without a join, the part reads all of them itself. `"unread": true` leaves out what another node has read.
    """
    rows = spec.get("nodes") if isinstance(spec, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and {"name", "from"} <= set(row) for row in rows):
        raise BadInput('a graph has "nodes", each with a name and what it reads from', repr(spec)[:60], path)
    known: dict[str, Signal] = {f"{INPUT}{i}": signal for i, signal in enumerate(signals)}
    known[INPUT] = signals[0]
    nodes: dict[str, Node] = {}
    for row in rows:
        name, place = str(row["name"]), f"{path}/{row['name']}"
        reads = [str(each) for each in row["from"]]
        if row.get("unread"):
            read = {each for node in nodes.values() for each in node.reads}
            reads = [each for each in reads if each not in read]
        if not reads:
            raise BadInput("a node reads from something", "nothing", place)
        unknown = [each for each in reads if each not in known]
        if unknown or name in known:
            law = "a node has a name of its own and reads from nodes before it"
            raise BadInput(law, unknown[0] if unknown else name, place, f"there are: {', '.join(known)}")
        of = row.get("of", "skip")
        each_of = of if isinstance(of, list) else [of] * len(reads)
        if row.get("join") is None:
            part: Part = _part(of, tuple(known[each] for each in reads), place, prune)
            joined = Joined("", (part,), part.gives)
        else:
            if len(each_of) != len(reads):
                raise BadInput("a node has a part for each that it reads", f"{len(each_of)} for {len(reads)}", place)
            own = zip(reads, each_of, strict=True)
            parts = [_part(spec, (known[read],), f"{place}<-{read}", prune) for read, spec in own]
            counting = _counting(str(row["join"]), parts)
            reads = [reads[i] for i in counting]
            joined = _joined(str(row["join"]), [parts[i] for i in counting], place, row.get("heads", 1))
        nodes[name] = Node(name, tuple(reads), joined)
        known[name] = joined.gives
    last = str(spec.get("output", next(reversed(nodes), "")))
    if last not in nodes:
        raise BadInput("the output of a graph is one of its nodes", last, path)
    kept = _needed(nodes, last) if prune else list(nodes.values())
    ordered = [node for node in kept if node.name != last] + [nodes[last]]
    return Graph(len(signals), tuple(ordered), nodes[last].joined.gives)


def _needed(nodes: Mapping[str, Node], last: str) -> list[Node]:
    wanted, asked = set[str](), [last]
    while asked:
        name = asked.pop()
        if name in nodes and name not in wanted:
            wanted.add(name)
            asked += nodes[name].reads
    return [node for name, node in nodes.items() if name in wanted]


def _counting(how: str, parts: Sequence[Part]) -> list[int]:
    """Which parts count in a join: to a sum zeros add nothing, and one of them stands for a sum of nothing else."""
    zeros = [isinstance(part, Piece) and part.kind == "zero" for part in parts]
    return [i for i, zero in enumerate(zeros) if how != "add" or not zero] or [0]


def _shortcut(signal: Signal, gives: Signal, path: str) -> Part:
    """What a residual adds: the input itself, or a linear map of it where the shape changes (He et al. 2016)."""
    if signal == gives:
        return _piece("skip", {}, signal, path)
    return _piece("project", {"out": gives.channels, "around": list(gives.around)}, signal, f"{path}/shortcut")


def _piece(kind: str, options: Mapping[str, Any], signal: Signal, path: str) -> Piece:
    if kind not in KINDS:
        raise BadInput("a module is one that is known", repr(kind), path, f"there are: {', '.join(KINDS)}")
    if not isinstance(options, Mapping):
        raise BadInput(f"the options of {kind} are an object", repr(options)[:60], path)
    written = json.dumps(options, sort_keys=True)
    gives = _gives(kind, written, signal)
    if isinstance(gives, str):
        law = f"{kind} must be able to run on what it gets"
        raise BadInput(law, f"{signal}: {gives}", path, "change its options or what comes before")
    return Piece(kind, written, signal, gives, path)


@cache
def _gives(kind: str, options: str, signal: Signal) -> Signal | str:
    """What a module gives, or why it cannot run."""
    try:
        with torch.device("meta"), torch.no_grad():
            module: nn.Module = made(kind, json.loads(options), signal)
            out = module.eval()(signal.example())
    except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError) as error:
        return first_line(error)
    if any(size < 1 for size in out.shape):
        return f"nothing is left of it: {tuple(out.shape[1:])}"
    padded = signal.tokens or signal.masked
    if padded and out.dim() == 3 and out.shape[1] != signal.shape[0]:
        return "behind tokens the number of places stays, or padding could not be told from text"
    if padded and out.dim() == 2 and not getattr(module, "masked", False):
        return "behind tokens places come together by mean, max, last or attentive, which leave padding out"
    return Signal(tuple(out.shape[1:]), masked=padded and out.dim() == 3)


def _word(spec: JSON, path: str) -> tuple[str, Any]:
    """The one module that a word or an object of one key names, with its options."""
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping) or len(spec) != 1:
        law = "a part of a network is a list, a word, or an object of one module and its options"
        raise BadInput(law, repr(spec)[:80], path)
    ((kind, options),) = spec.items()
    return str(kind), options
