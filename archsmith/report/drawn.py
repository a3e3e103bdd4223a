"""A network as a graph: its modules as boxes, and arrows for what each reads. Cells are drawn once, beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from xml.etree import ElementTree

from archsmith.build.genome import Genome
from archsmith.build.plan import INPUT, Chain, Graph, Joined, Node, Part, Piece, Weighed
from archsmith.report.layout import Box, Item, dot, layered, text, times

SMALL = 6  # modules in a row that are one box beside others
PERIOD = 6  # parts that are looked at together for whether they come again
ASKS = "attend"  # the join that tells what it reads apart
PLAIN = (("out", "in"), ("stride", 1), ("dilation", 1))  # options that need not be said
SIZES = ("around", "out")  # options that differ between cells that are the same but for their width


class Cells:
    """Graphs inside a network, each once: those that differ in nothing but sizes are one."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, Graph]] = {}

    def name(self, graph: Graph) -> str:
        """The letter of a graph, a new one for one that has not been met."""
        number = len(self.found)
        letter = chr(ord("A") + number) if number < 26 else str(number)
        return self.found.setdefault(_structure(graph), (letter, graph))[0]


def drawn(part: Part) -> str:
    """HTML: the network, then its cells."""
    cells = Cells()
    whole = _graph(part, cells) if isinstance(part, Graph) else _chain(part, cells)
    figures = [_figure(whole, "The network", "")]
    done = 0
    while done < len(cells.found):  # a cell may hold others
        letter, graph = list(cells.found.values())[done]
        said = "Sizes are those of the first." + (" in0 comes in on the left." if graph.inputs > 1 else "")
        figures.append(_figure(_graph(graph, cells), f"Cell {letter}", said))
        done += 1
    return f'<div class="drawn">{"".join(figures)}</div>'


def drawn_genome(genome: Genome) -> str:
    """HTML: a network that NEAT has grown, its nodes by their numbers, an arrow for each link that is enabled."""
    named = {node: f"in {node}" for node in range(genome.inputs)} | {genome.bias: "always 1"}
    named |= {genome.bias + 1 + out: f"out {out}" for out in range(genome.outputs)}
    reads = {
        node: [f"{link.source}" for link in genome.links if link.enabled and link.target == node]
        for node in genome.nodes
    }
    order = sorted(genome.nodes, key=lambda node: (genome.levels[node], node))
    items = [Item(f"{node}", text([(named.get(node, f"{node}"), "")], "join"), tuple(reads[node])) for node in order]
    return f'<div class="drawn">{_figure(layered(items), "The network", "")}</div>'


def _figure(box: Box, title: str, said: str) -> str:
    width, height = box.width + 2, box.height + 2  # half of a line lies outside
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="-1 -1 {width:.1f} {height:.1f}"'
    picture = f'<svg class="net" role="group" aria-label="{escape(title)} as a graph" {size}>{box.svg}</svg>'
    caption = f"<figcaption><b>{escape(title)}</b> {escape(said)}</figcaption>"
    around = f'<div class="around" tabindex="0" role="region" aria-label="{escape(title)}">{picture}</div>'
    return f"<figure>{caption}{around}</figure>"


def _box(part: Part, cells: Cells) -> Box:
    """A part inside another, where few modules in a row are one box; what it gives is said where it is joined."""
    if isinstance(part, Piece):
        return _modules([part], gives=False)
    if isinstance(part, Chain):
        parts = _working(part)
        alone = [each for each in parts if isinstance(each, Piece)]
        few = len(alone) == len(parts) <= SMALL
        return _modules(alone, gives=False) if few else _chain(part, cells, inside=True)
    if isinstance(part, Joined):
        return layered(_joined(part, cells))
    if isinstance(part, Graph):
        return text([(cells.name(part), _shape(part))])
    if isinstance(part, Weighed):
        return _box(part.part, cells)
    raise AssertionError(part)


def _modules(row: Sequence[Piece], gives: bool = True) -> Box:
    """Modules one after another as one box, with what the last of them gives."""
    lines = [(piece.kind, _options(piece)) for piece in row]
    if gives:
        lines[-1] = (lines[-1][0], f"{lines[-1][1]} {_shape(row[-1])}".strip())
    return text(lines)


def _chain(part: Part, cells: Cells, inside: bool = False) -> Box:
    """Parts one below another; what comes several times in a row is drawn once, with how often."""
    boxes = [] if inside else [text([(INPUT, "")], "join")]
    row = list[Piece]()
    for each in [*(_working(part) if isinstance(part, Chain) else [part]), None]:
        rides = isinstance(each, Piece) and row and each.options == "{}" and each.gives == row[-1].gives
        if row and not rides:
            boxes.append(_modules(row))
            row = []
        if isinstance(each, Piece):
            row.append(each)
        elif each is not None:
            boxes.append(_box(each, cells))
    return _stacked(_once(boxes))


def _working(chain: Chain) -> list[Part]:
    """The parts of a chain but for those that pass their input on."""
    return [part for part in chain.parts if not _passes(part)] or [chain.parts[0]]


def _once(boxes: Sequence[Box]) -> list[Box]:
    """What repeats, drawn once."""
    found, at = list[Box](), 0
    while at < len(boxes):
        period, count = 1, 1
        for length in range(1, PERIOD + 1):
            first, again = boxes[at : at + length], 1
            while len(first) == length and boxes[at + again * length : at + (again + 1) * length] == first:
                again += 1
            if again > 1 and again * length > period * count:
                period, count = length, again
        once = boxes[at : at + period]
        found += [times(_stacked(once), count)] if count > 1 else once
        at += period * count
    return found


def _stacked(boxes: Sequence[Box]) -> Box:
    return layered([Item(str(n), box, (str(n - 1),) if n else ()) for n, box in enumerate(boxes)])


def _joined(part: Joined, cells: Cells) -> list[Item]:
    """Parts side by side; what passes its input on is an arrow alone."""
    items, ends = [Item(INPUT, dot())], list[str]()
    for number, each in enumerate(part.parts):
        ends.append(INPUT if _passes(each) else str(number))
        if not _passes(each):
            items.append(Item(str(number), _box(each, cells), (INPUT,)))
    return [*items, Item("join", text([(part.how, _join(part))], "join"), tuple(ends), part.how == ASKS)]


def _graph(graph: Graph, cells: Cells) -> Box:
    """Nodes, and on the way to each the parts that it reads through."""
    inputs = [f"{INPUT}{n}" for n in range(graph.inputs)] if graph.inputs > 1 else [INPUT]
    items = [Item(name, text([(name, "")], "join")) for name in inputs]
    read = {each for node in graph.nodes for each in node.reads} | {graph.nodes[-1].name}
    for node in graph.nodes:
        sources = [inputs[0] if each in (INPUT, f"{INPUT}0") else each for each in node.reads]
        if not node.joined.how:
            items.append(Item(node.name, _named(node, cells), tuple(sources), apart=True))
            continue
        for number, part in enumerate(node.joined.parts):
            if not _passes(part):
                way = f"{node.name}\n{number}"
                items.append(Item(way, _box(part, cells), (sources[number],)))
                sources[number] = way
        said = f"{node.joined.how} " * (len(sources) > 1) + _join(node.joined)
        said += "" if node.name in read else " not read"
        items.append(Item(node.name, text([(node.name, said)], "join"), tuple(sources), node.joined.how == ASKS))
    return layered(items)


def _named(node: Node, cells: Cells) -> Box:
    """A node that is one part, under its name."""
    part = node.joined.parts[0]
    if isinstance(part, Graph):
        return text([(node.name, f"{cells.name(part)} {_shape(part)}")])
    return layered([Item("name", text([(node.name, "")], "join")), Item("part", _box(part, cells), ("name",))])


def _passes(part: Part) -> bool:
    return isinstance(part, Piece) and part.kind == "skip"


def _join(part: Joined) -> str:
    """What a join gives; of attention also what its arrows are."""
    heads = f", heads {part.heads}" if part.heads > 1 else ""
    return f"queries, keys, values{heads} {_shape(part)}" if part.how == ASKS else _shape(part)


def _options(piece: Piece) -> str:
    options = json.loads(piece.options)
    return ", ".join(f"{name} {value}" for name, value in options.items() if (name, value) not in PLAIN)


def _shape(part: Part) -> str:
    return f"→ {'×'.join(map(str, part.gives.shape))}"


def _structure(part: Part) -> str:
    """What a part is but for its sizes, as text."""
    if isinstance(part, Piece):
        kept = {name: value for name, value in json.loads(part.options).items() if name not in SIZES}
        return f"{part.kind}{json.dumps(kept, sort_keys=True)}"
    if isinstance(part, Graph):
        return json.dumps([[node.name, node.reads, _structure(node.joined)] for node in part.nodes])
    if isinstance(part, Weighed):
        return _structure(part.part)
    how = (part.how, part.heads) if isinstance(part, Joined) else ()
    return json.dumps([type(part).__name__, *how, *map(_structure, part.parts)])


TAGS = {"b", "circle", "div", "figcaption", "figure", "g", "path", "rect", "svg", "text", "title", "tspan"}
ATTRIBUTES = {"aria-label", "class", "cx", "cy", "d", "height", "r", "role", "rx", "tabindex", "transform", "viewBox",
              "width", "x", "y"}  # fmt: skip


def harmless(drawing: str) -> str:
    """A drawing that lay in a file, which anybody may have written; empty where it has what no drawing has.

    >>> harmless("<b>in</b>"), harmless("<script>1</script>"), harmless('<b onclick="1">in</b>'), harmless("<b>in")
    ('<b>in</b>', '', '', '')
    """
    try:
        parts = list(ElementTree.fromstring(f"<div>{drawing}</div>").iter())
    except ElementTree.ParseError:
        return ""
    known = all(part.tag in TAGS and set(part.attrib) <= ATTRIBUTES for part in parts)
    return drawing if known and "<!" not in drawing and "<?" not in drawing else ""
