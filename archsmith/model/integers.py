"""Whole numbers baked into modules (`num_heads`, `split_size`): which of them must shrink with an axis.

They are found by value and position, and proved by trying: the right ones are those with which the cut model runs
and equals the masked one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from archsmith.model.axes import Candidate
from archsmith.model.cut import SHAPE_ATTRIBUTES, is_depthwise
from archsmith.model.share import ancestors, common, owner, within

# Numbers of another kind, whatever their value.
_OTHER = re.compile(
    r"idx|index|layers?|positions?|length|image|patch|kernel|stride|padding|window|vocab|labels?|tokens?|dilation|_id$"
)
MAX_TRIES = 40

Integers = tuple[tuple[str, str], ...]


def holders(model: nn.Module, candidate: Candidate) -> Integers:
    """(module, attribute) of every whole number that could count this axis: it lies around the axis's places, and
    its value is the number of units, or that times the sizes of its neighbours in a dimension."""
    owners = [owner(place.parameter) for place in candidate.axis.places]
    top = common(owners)
    modules = dict.fromkeys(p for path in owners for p in (path, *ancestors(path)) if within(p, top))
    found: list[tuple[str, str]] = []
    for path in modules:
        module = model.get_submodule(path)
        convolution = isinstance(module, nn.modules.conv._ConvNd)
        for name, value in vars(module).items():
            counts = type(value) is int and value > 1 and value in candidate.multiples
            known = name in SHAPE_ATTRIBUTES or (convolution and (name != "groups" or is_depthwise(module)))
            if counts and not known and not _OTHER.search(name):
                found.append((path, name))
        config = vars(module).get("config")
        if isinstance(config, PreTrainedConfig) and not isinstance(module, PreTrainedModel):
            numbers = {name: value for name, value in vars(config).items() if type(value) is int and value > 1}
            counting = [name for name, value in numbers.items() if value in candidate.multiples]
            found += [(path, f"config.{name}") for name in counting if not _OTHER.search(name)]
    return tuple(found)


def guesses(held: Integers, learned: list[frozenset[str]], sparing: bool) -> Iterator[Integers]:
    """Sets of numbers to try, likeliest first: what was right for a like axis, all, all but one, none, one, two.

    Numbers of a module's config (`config.num_heads`) come after its own, and beside all of these.
    `sparing`: none comes first, for an axis so wide that numbers of other things lie around its places.
    """
    everything = frozenset(name for _, name in held)
    names = sorted(name for name in everything if not name.startswith("config."))
    full = frozenset(names)
    order = [frozenset(known & everything) for known in learned] + ([frozenset()] if sparing else []) + [full]
    configs = sorted(everything - full)
    order += [full | {name} for name in configs] + [everything]
    order += [(full - {name}) | {beside} for name in names for beside in configs]
    order += [full - {name} for name in names] + [frozenset()] + [frozenset({name}) for name in names]
    order += [full - set(pair) for pair in combinations(names, 2)] + [frozenset(p) for p in combinations(names, 2)]
    for chosen in list(dict.fromkeys(order))[:MAX_TRIES]:
        yield tuple((path, name) for path, name in held if name in chosen)
