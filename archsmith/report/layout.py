"""Boxes with arrows from one to the next, in layers from top to bottom, as SVG text.

A box lies in the layer below the lowest that it reads; in a layer boxes are ordered by the mean place of their
neighbours (Sugiyama et al. 1981), and lie as near to these as others let them. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression

LETTER, LINE = 7.3, 17.0  # of text: the width of a letter, the height of a line
BETWEEN, BELOW = 18.0, 28.0  # boxes of a layer, layers
SWEEPS = 8  # down and up again
LONGEST = 46  # letters of a line


@dataclass(frozen=True)
class Box:
    """A drawing from its upper left corner on. Arrows enter its top and leave its bottom, so far from its left."""

    width: float
    height: float
    svg: str
    enters: float
    leaves: float


@dataclass(frozen=True)
class Item:
    """A named box and the names of those before it that it reads: from left to right, where they are told apart."""

    name: str
    box: Box
    reads: tuple[str, ...] = ()
    apart: bool = False


def text(lines: Sequence[tuple[str, str]], look: str = "box") -> Box:
    """A frame around lines, each of a strong and a soft part; what is too long is cut, and told in full on pointing."""
    wide = max(min(LONGEST, len(f"{strong} {soft}".strip())) for strong, soft in lines)
    width, height = wide * LETTER + 16, len(lines) * LINE + 6
    rows = []
    for number, (strong, soft) in enumerate(lines):
        name = strong if len(strong) <= LONGEST else strong[: LONGEST - 1] + "…"
        room = LONGEST - len(name) - 1
        cut = soft if len(soft) <= room else soft[: max(0, room - 1)] + "…" * (room > 0)
        said = escape(name) + (f' <tspan class="soft">{escape(cut)}</tspan>' if cut else "")
        told = f"<title>{escape(f'{strong} {soft}')}</title>" if (name, cut) != (strong, soft) else ""
        rows.append(f'<text x="{width / 2:.1f}" y="{15 + LINE * number:.1f}">{said}{told}</text>')
    frame = f'<rect class="{look}" width="{width:.1f}" height="{height:.1f}" rx="{4 if look == "box" else 11}"/>'
    return Box(width, height, frame + "".join(rows), width / 2, width / 2)


def dot() -> Box:
    """Where a way parts."""
    return Box(8, 8, '<circle cx="4" cy="4" r="4"/>', 4, 4)


def times(box: Box, count: int) -> Box:
    """A box that comes so many times in a row."""
    width = box.width + 16 + LETTER * len(f"× {count}") + 14
    frame = f'<rect class="times" width="{width:.1f}" height="{box.height + 16:.1f}" rx="6"/>'
    said = f'<text class="count" x="{box.width + 16:.1f}" y="{box.height / 2 + 12:.1f}">× {count}</text>'
    return Box(width, box.height + 16, f"{frame}{_moved(box, 8, 8)}{said}", box.enters + 8, box.leaves + 8)


def layered(items: Sequence[Item]) -> Box:
    """The boxes with an arrow for each that one reads; each comes behind those that it reads. What comes in enters the
    first, and the last gives what leaves."""
    named = {item.name: item.box for item in items}
    layer: dict[str, int] = {}
    rows: list[list[str]] = []
    for item in items:
        layer[item.name] = 1 + max((layer[read] for read in item.reads), default=-1)
        rows += [[]] * (layer[item.name] == len(rows))
        rows[layer[item.name]] = [*rows[layer[item.name]], item.name]
    ways = [(item, port, _way(item, port, layer, rows)) for item in items for port in range(len(item.reads))]
    links = [link for _, _, way in ways for link in pairwise(way)]
    x = _across(_ordered(rows, links), links, named)
    high = [max(named[name].height for name in row if name in named) for row in rows]
    top = [sum(high[:n]) + BELOW * n for n in range(len(rows))]
    left = {item.name: x[item.name] - item.box.enters for item in items}
    drawn = [_moved(item.box, left[item.name], top[layer[item.name]]) for item in items]
    before = {(item.name, port): x[way[-2]] for item, port, way in ways}
    for item, port, way in ways:
        source = named[way[0]]
        points = [(left[way[0]] + source.leaves, top[layer[way[0]]] + source.height)]
        for n, bend in enumerate(way[1:-1], layer[way[0]] + 1):
            points += [(x[bend], top[n]), (x[bend], top[n] + high[n])]
        drawn.append(_arrow([*points, (x[item.name] + _entry(item, port, before), top[layer[item.name]])]))
    ends = left[items[-1].name] + items[-1].box.leaves
    width = max(*(left[item.name] + item.box.width for item in items), *x.values())
    return Box(width, top[-1] + high[-1], "".join(drawn), x[items[0].name], ends)


def _way(item: Item, port: int, layer: Mapping[str, int], rows: Sequence[list[str]]) -> list[str]:
    """The names from what is read to the item; a bend is put into each layer that the arrow crosses."""
    read, bends = item.reads[port], list[str]()
    for n in range(layer[read] + 1, layer[item.name]):
        bends.append(f"{item.name}\n{port} {n}")
        rows[n].append(bends[-1])
    return [read, *bends, item.name]


def _entry(item: Item, port: int, before: Mapping[tuple[str, int], float]) -> float:
    """How far right of the middle the arrow of a port comes in; `before`: where each comes from."""
    ports = list(range(len(item.reads)))
    if not item.apart:
        ports.sort(key=lambda each: before[item.name, each])
    return item.box.width * ((ports.index(port) + 1) / (len(ports) + 1) - 0.5) if len(ports) > 1 else 0.0


def _ordered(rows: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Each row ordered by the mean place of what its boxes read, then by that of what reads them, and again."""
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for n in range(1, len(rows)) if down else range(len(rows) - 2, -1, -1):
            place = {name: at for at, name in enumerate(rows[n - 1 if down else n + 1])}
            near = {name: [place[a if down else b] for a, b in links if name == (b if down else a)] for name in rows[n]}
            own = {name: at for at, name in enumerate(rows[n])}
            rows[n].sort(key=lambda name: (float(np.mean(near[name])) if near[name] else own[name], own[name]))
    return rows


def _across(
    rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]], boxes: Mapping[str, Box]
) -> dict[str, float]:
    """Where the arrows into each box, and the bends, are; the leftmost box begins at 0."""
    x = {name: 0.0 for row in rows for name in row}
    left = {name: boxes[name].enters if name in boxes else 4.0 for name in x}
    right = {name: boxes[name].width - left[name] if name in boxes else 4.0 for name in x}
    near: dict[str, list[str]] = {name: [] for name in x}
    for a, b in links:
        near[a].append(b)
        near[b].append(a)
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            ahead = np.cumsum([0.0, *(right[a] + left[b] + BETWEEN for a, b in pairwise(row))])
            wanted = np.array([np.mean([x[each] for each in near[name] or [name]]) for name in row])
            # As near to what is wanted as the order and the widths allow, in squares.
            found = isotonic_regression(wanted - ahead + ahead.mean()).x + ahead - ahead.mean()
            x.update(zip(row, found.tolist(), strict=True))
    begins = min(x[name] - left[name] for name in x)
    return {name: at - begins for name, at in x.items()}


def _moved(box: Box, x: float, y: float) -> str:
    return f'<g transform="translate({x:.1f} {y:.1f})">{box.svg}</g>'


def _arrow(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    line = f"M{x:.1f} {y:.1f}"
    for to_x, to_y in rest:
        end = to_y - 5 if (to_x, to_y) == points[-1] else to_y
        half = (y + end) / 2
        line += f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {end:.1f}"
        x, y = to_x, to_y
    return f'<path d="{line}"/><path class="head" d="M{x:.1f} {y:.1f}l-4 -7h8z"/>'
