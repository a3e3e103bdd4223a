"""One table (kind, name) -> object: what each room offers, and what installed plug-ins add.

A plug-in declares an entry point in the group `archsmith.plugins` named
"kind.name": `"strategy.mine" = "package:factory"`.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import entry_points
from typing import Any

from archsmith.errors import BadInput
from archsmith.search import STRATEGIES, strategy

TABLE: dict[tuple[str, str], Any] = {("strategy", name): partial(strategy, name) for name in STRATEGIES}


def names(kind: str) -> list[str]:
    """Every name known of a kind, plug-ins included.

    >>> names("strategy")[:2]
    ['annealing', 'asha']
    """
    plugged = [point.name.partition(".") for point in entry_points(group="archsmith.plugins")]
    return sorted({name for each, name in TABLE if each == kind} | {name for each, _, name in plugged if each == kind})


def find(kind: str, name: str) -> Any:
    """The object of that kind and name; ours before a plug-in's. Raises `BadInput` listing what there is."""
    if (kind, name) in TABLE:
        return TABLE[kind, name]
    for point in entry_points(group="archsmith.plugins", name=f"{kind}.{name}"):
        return point.load()
    known = ", ".join(names(kind)) or "none"
    raise BadInput(f"a {kind} must be one that is known", repr(name), "", f"there are: {known}")
