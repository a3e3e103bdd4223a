"""Passes that begin in the middle: layers that have been run hand on what they gave, without being run again.

What a pass costs after a change in one layer is then that layer and those behind it; where the pass also ends in it,
the layer alone, however many others there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from archsmith.model.running import Inputs, deviation, main_outputs
from archsmith.model.wide import computed_wide

MOST_HELD = 2**31  # bytes of what layers gave that are held at a time
SAME = 1e-5  # of the output's scale


class Given(dict[nn.Module, Any]):
    """What modules gave in one pass, in the order in which they ended."""


class Relay:
    """A model's passes over some batches, each layer run once: `given` is what those before the present one gave.

    layers: those that may hand on; the others, and all of them where a model does not let itself be begun in the
    middle, are run again each time.
    """

    def __init__(self, model: nn.Module, batches: Sequence[Inputs], layers: Sequence[nn.Module]) -> None:
        self.model, self.batches = model, batches
        self.layers = relayed(model, batches, layers) if layers and batches else []
        self.given = [Given() for _ in batches]

    def advance(self, module: nn.Module) -> None:
        """Run on until the layer that is this module, or holds it, is about to run."""
        layer = next((each for each in self.layers if module in set(each.modules())), None)
        if layer is None:
            return
        for given, inputs in zip(self.given, self.batches, strict=True):
            with handed_on(given):
                given |= run_until(self.model, inputs, [each for each in self.layers if each not in given], layer)

    def passed(self, number: int, module: nn.Module) -> Tensor:
        """The first tensor that a module gives on a batch, in a pass that begins at the present layer and ends there.

        With a gradient where one is asked for.
        """
        with handed_on(self.given[number]), computed_wide(self.model):
            return leaving(self.model, self.batches[number], module)


class _Reached(Exception):
    """The module that a pass was to end at is about to run, or has run."""


@contextmanager
def handed_on(given: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Within, each of these modules gives a copy of what is said here and does not run."""
    own = {module: vars(module).get("forward") for module in given}
    for module, out in given.items():
        module.__dict__["forward"] = _giver(out)
    try:
        yield
    finally:
        for module, before in own.items():
            del module.__dict__["forward"]
            if before is not None:
                module.__dict__["forward"] = before


def run_until(model: nn.Module, inputs: Inputs, layers: Iterable[nn.Module], stop: nn.Module | None = None) -> Given:
    """What each of these layers gives in a pass without gradient, which ends where `stop` is about to run."""
    found = Given()

    def note(module: nn.Module, args: Any, out: Any) -> None:
        found[module] = _copied(out)

    def reach(module: nn.Module, args: Any) -> None:
        raise _Reached

    hooks = [layer.register_forward_hook(note) for layer in layers]
    hooks += [stop.register_forward_pre_hook(reach)] if stop is not None else []
    try:
        with torch.no_grad(), computed_wide(model):
            model(**inputs)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return found


def leaving(model: nn.Module, inputs: Inputs, module: nn.Module) -> Tensor:
    """The first tensor that a module gives in a pass, which ends there. Raises ValueError where it does not run."""
    found: list[Tensor] = []

    def note(module: nn.Module, args: Any, out: Any) -> None:
        found.append(out if isinstance(out, Tensor) else next(x for x in tree_leaves(out) if isinstance(x, Tensor)))
        raise _Reached

    hook = module.register_forward_hook(note)
    try:
        model(**inputs)
    except _Reached:
        return found[0]
    finally:
        hook.remove()
    raise ValueError("a layer must run in every pass; one did not")


def relayed(model: nn.Module, batches: Sequence[Inputs], layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Those of these layers that run once in a pass and hold no other, in the order in which they run.

    None where what they give on all batches would take too much memory, or where a pass that is handed them comes out
    otherwise: a layer may pass something on beside what it gives (keys and values that later layers share).
    """
    inputs, asked = batches[0], list(layers)
    ran: Counter[nn.Module] = Counter()

    def count(module: nn.Module, args: Any) -> None:
        ran[module] += 1

    hooks = [layer.register_forward_pre_hook(count) for layer in asked]
    try:
        with torch.no_grad(), computed_wide(model):
            plain = main_outputs(model(**inputs))
    finally:
        for hook in hooks:
            hook.remove()
    outer = {layer for layer in asked if any(other is not layer and other in set(layer.modules()) for other in asked)}
    found = [layer for layer, times in ran.items() if times == 1 and layer not in outer]
    given = run_until(model, inputs, found)
    held = sum(x.numel() * x.element_size() for x in tree_leaves(list(given.values())) if isinstance(x, Tensor))
    given.popitem() if given else None
    try:
        with torch.no_grad(), computed_wide(model), handed_on(given):
            again = main_outputs(model(**inputs))
    except Exception:  # whatever a model misses that a layer did not leave behind
        return []
    return found if held * len(batches) <= MOST_HELD and deviation(again, plain) <= SAME else []


def _giver(out: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: _copied(out)


def _copied(value: Any) -> Any:
    """Tensors anew: whoever is given one may write into it."""
    return tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, value)
