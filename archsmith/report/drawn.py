"""A network's plan as nested boxes: parts one below another, parts side by side where they read the same."""

from __future__ import annotations

import json
from html import escape
from itertools import groupby

from archsmith.build.plan import Chain, Graph, Joined, Node, Part, Piece


def drawn(part: Part) -> str:
    """HTML; what comes several times in a row is drawn once, with how often."""
    if isinstance(part, Piece):
        options = ", ".join(f"{name} {value}" for name, value in json.loads(part.options).items())
        gives = "×".join(map(str, part.gives.shape))
        return f"<div class='part'>{escape(part.kind)} <span class='soft'>{escape(options)} → {gives}</span></div>"
    if isinstance(part, Chain):
        same = [(look, len(list(times))) for look, times in groupby(drawn(each) for each in part.parts)]
        rows = [look if times == 1 else f"<div class='side'>{look}<b>× {times}</b></div>" for look, times in same]
        return f"<div class='chain'>{''.join(rows)}</div>"
    if isinstance(part, Joined):
        sides = "".join(drawn(each) for each in part.parts)
        return f"<div class='side'>{sides}<span class='soft'>{escape(part.how)}</span></div>" if part.how else sides
    if isinstance(part, Graph):
        rows = [f"<div class='side'>{_head(node)}{drawn(node.joined)}</div>" for node in part.nodes]
        return f"<div class='chain'>{''.join(rows)}</div>"
    raise AssertionError(part)


def _head(node: Node) -> str:
    return f"<b>{escape(node.name)}</b> <span class='soft'>from {escape(', '.join(node.reads))}</span>"
