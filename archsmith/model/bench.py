"""The place where proposals are tried: a private copy of the model, two inputs, and ways to run it changed.

Every deviation is the largest difference of the outputs over their largest magnitude, the worse of the two inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from archsmith.model.anatomy import Anatomy, Axis, Branch, Place
from archsmith.model.cut import Plan, cut, kept_positions, put_entries, put_positions
from archsmith.model.reference import Reference
from archsmith.model.running import Inputs, deviation, give_back_memory, like, main_outputs, run
from archsmith.model.share import replace, skeleton, tensors
from archsmith.model.trace import Traced, first_tensor
from archsmith.model.wide import computed_wide

DOUBLE_UP_TO = 8_000_000  # parameters: beyond that double precision costs too much memory and time
DIFFERENTIATED = 2**26  # entries of a table beyond which its gradient would be half of a large model again
LOOKED_AT = 2**20  # entries of a parameter that tell a slope; of more, every so many rows or columns
Runs = list[list[Tensor]]


class Bench:
    """A private copy of a model, in double precision where it is small and runs in it, with two inputs."""

    def __init__(self, model: nn.Module, inputs: Inputs, rng: np.random.Generator) -> None:
        self.rng = rng
        self.inputs = [dict(inputs), like(inputs, rng)]
        self.model = skeleton(model).eval()
        self.large = sum(p.numel() for p in model.parameters()) > DOUBLE_UP_TO
        if not self.large:
            self._double(model)
        self.tidy()
        self.outputs = self.run(self.model)

    def _double(self, model: nn.Module) -> None:
        """Rounding then lies ten orders below any effect."""
        precise = skeleton(model).eval().double()
        inputs = [
            {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in given.items()}
            for given in self.inputs
        ]
        try:
            run(precise, inputs[0])
        except Exception:
            return  # a model that makes single-precision tensors itself is tried in single precision
        self.model, self.inputs = precise, inputs

    def tell_units_apart(self, axes: Sequence[Axis]) -> None:
        """Units that are all alike (zero biases, unit norms) cannot show a permutation: nudge such tensors a little."""
        old = tensors(self.model)
        nudged: dict[str, Tensor] = {}
        for axis in axes:
            for place in axis.places:
                tensor = nudged.get(place.parameter, old[place.parameter]).detach()
                if tensor.is_floating_point() and _alike(tensor, place):
                    noise = torch.from_numpy(self.rng.standard_normal(tuple(tensor.shape))).to(tensor)
                    nudged[place.parameter] = tensor * (1 + 0.05 * noise) + 0.02 * noise.abs() * (tensor == 0)
        if nudged:
            replace(self.model, nudged)
            self.outputs = self.run(self.model)

    def run(self, model: nn.Module) -> Runs:
        """The main outputs on each input."""
        return [run(model, given) for given in self.inputs]

    def tidy(self) -> None:
        """Before a changed copy is made, what the last one took is given back."""
        if self.large:
            give_back_memory()

    def differ(self, runs: Runs, reference: Runs) -> float:
        """The worst deviation over the inputs."""
        return max(deviation(one, other) for one, other in zip(runs, reference, strict=True))

    def permuted(self, axes: Sequence[Axis], orders: Mapping[str, np.ndarray], only: Place | None = None) -> float:
        """How far the outputs move when the units of these axes are permuted, at all places or at one only."""
        changed = [Axis(a.name, a.kind, a.size, (only,)) if only else a for a in axes]
        self.tidy()
        model = skeleton(self.model)
        drafted = draft(changed, orders)
        put_positions(model, kept_positions(drafted, tensors(model)))
        put_entries(model, drafted)
        return self.differ(self.run(model), self.outputs)

    def cut(self, axes: Sequence[Axis], keep: Mapping[str, np.ndarray]) -> Runs:
        """The outputs of the model that is really cut."""
        self.tidy()
        return self.run(cut(self.model, draft(axes, keep)))

    def masked(self, axes: Sequence[Axis], keep: Mapping[str, np.ndarray], norms: Traced, atoms: Sequence[Any]) -> Runs:
        """The outputs of the full model with the units that are not kept set to zero, and its norms blind to them."""
        self.tidy()
        model = skeleton(self.model)
        replace(model, _zeroed(tensors(model), axes, keep))
        outputs: Runs = []
        for given in self.inputs:
            with torch.no_grad(), computed_wide(model), Reference(norms, dict(zip(atoms, keep.values(), strict=True))):
                outputs.append(main_outputs(model(**given)))
        return outputs

    def without(self, branches: Sequence[Branch]) -> Runs:
        """The outputs of the model with branches really taken out."""
        self.tidy()
        anatomy = Anatomy({}, {branch.name: branch for branch in branches}, ())
        return self.run(cut(self.model, Plan(anatomy, {}, frozenset(anatomy.branches))))

    def silenced(self, branches: Sequence[Branch]) -> Runs:
        """The outputs of the full model with these branches' last products set to zero (their biases stay)."""
        self.tidy()
        model = skeleton(self.model)
        old = tensors(model)
        exits = [model.get_submodule(branch.exit)._parameters["weight"] for branch in branches]
        replace(model, {n: torch.zeros_like(t) for n, t in old.items() if any(t is weight for weight in exits)})
        return self.run(model)

    def bypassed(self, layers: Sequence[Branch]) -> Runs:
        """The outputs of the full model where the results of these layers are replaced by their inputs."""
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(_hooked(self.model.get_submodule(layer.module), _give_back))
            return self.run(self.model)

    def heard(self, branches: Sequence[Branch]) -> set[str]:
        """Names of the branches that are seen to do something: what their last product reads is not zero everywhere, or
        their layer gives back something else than it got."""
        found: set[str] = set()

        def product(name: str) -> Callable[..., None]:
            def note(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
                entered = first_tensor(args, kwargs)
                if entered is not None and bool((entered != 0).any()):
                    found.add(name)

            return note

        def layer(name: str) -> Callable[..., None]:
            def note(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
                entered, left = first_tensor(args, kwargs), first_tensor(out)
                if entered is None or left is None:
                    return
                if entered.shape != left.shape or bool((entered != left).any()):
                    found.add(name)

            return note

        with ExitStack() as stack:
            for branch in branches:
                hook = product(branch.name) if branch.exit else layer(branch.name)
                stack.enter_context(_hooked(self.model.get_submodule(branch.exit or branch.module), hook))
            self.run(self.model)
        return found

    def slopes(self, axes: Sequence[Axis], orders: Mapping[str, np.ndarray]) -> dict[tuple[str, int], float | None]:
        """(axis, place number) -> how far the outputs move, to first order, when only that place is permuted.

        A random projection of the outputs is differentiated by every tensor at once, on each input; a gradient is used
        when it arrives and given up. None where none arrives.
        """
        places: dict[str, list[tuple[str, int, Place]]] = {}
        for axis in axes:
            for i, place in enumerate(axis.places):
                places.setdefault(place.parameter, []).append((axis.name, i, place))
        found: dict[tuple[str, int], float | None] = {(a, i): None for rows in places.values() for a, i, _ in rows}
        for given, outputs in zip(self.inputs, self.outputs, strict=True):
            felt: dict[tuple[str, int], float] = {}

            def learn(name: str, leaf: Tensor, felt: dict[tuple[str, int], float] = felt) -> None:
                gradient, leaf.grad = leaf.grad, None
                if gradient is not None:
                    for axis, i, place in places.get(name, []):
                        slope = _slope(leaf.detach(), gradient, place, orders[axis])
                        if math.isfinite(slope):  # a root of 0 has no slope, and what lies before it may matter
                            felt[axis, i] = slope

            if self._differentiate(given, outputs, learn):
                found |= {key: max(found[key] or 0.0, effect) for key, effect in felt.items()}
        return found

    def _differentiate(self, given: Inputs, outputs: list[Tensor], learn: Callable[[str, Tensor], None]) -> bool:
        """Hand `learn` every parameter when its gradient has arrived; whether the forward pass has one at all."""
        self.tidy()
        # Buffers are left out: running statistics have no derivative, and torch refuses to be asked for one.
        held = {n: t.detach() for n, t in self.model.named_parameters() if t.is_floating_point()}
        for name, leaf in held.items():
            if leaf.numel() <= DIFFERENTIATED:
                leaf.requires_grad_()
                leaf.register_post_accumulate_grad_hook(partial(learn, name))  # type: ignore[no-untyped-call]
        try:
            with torch.enable_grad(), computed_wide(self.model):
                out = main_outputs(torch.func.functional_call(self.model, held, (), dict(given)))
                total = torch.zeros((), dtype=out[0].dtype)
                for tensor, reference in zip(out, outputs, strict=True):
                    scale = reference.abs().max().clamp_min(1e-30) * reference.numel() ** 0.5
                    weights = torch.from_numpy(self.rng.standard_normal(tuple(tensor.shape))).to(tensor)
                    total = total + (tensor * weights).sum() / scale
                total.backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, NotImplementedError):
            return False  # a forward pass that cannot be differentiated is measured place by place
        return True


def draft(axes: Sequence[Axis], keep: Mapping[str, np.ndarray]) -> Plan:
    """A plan on proposed axes."""
    anatomy = Anatomy({axis.name: axis for axis in axes}, {}, ())
    return Plan(anatomy, {axis.name: tuple(map(int, keep[axis.name])) for axis in axes})


def _alike(tensor: Tensor, place: Place) -> bool:
    first = tensor.index_select(place.dim, torch.from_numpy(place.index[0]))
    return all(torch.equal(first, tensor.index_select(place.dim, torch.from_numpy(unit))) for unit in place.index[1:])


def _slope(value: Tensor, gradient: Tensor, place: Place, order: np.ndarray) -> float:
    """The directional derivative along a permutation of the units at one place.

    Of a large parameter it is estimated from some of the rows or columns that have a gradient (of a table, those that
    were looked up): a sum of so many terms without order grows as the root of their number.
    """
    positions = np.arange(value.shape[place.dim])
    positions[place.index] = place.index[order]
    gradient = gradient.to_dense()
    others = [dim for dim in range(value.dim()) if dim != place.dim]
    step = 1
    if others and value.numel() > LOOKED_AT:
        widest = max(others, key=lambda dim: value.shape[dim])
        felt = gradient.abs().amax([dim for dim in range(value.dim()) if dim != widest]).nonzero()[:, 0]
        step = max(1, len(felt) * (value.numel() // value.shape[widest]) // LOOKED_AT)
        value, gradient = value.index_select(widest, felt[::step]), gradient.index_select(widest, felt[::step])
    moved = value.index_select(place.dim, torch.from_numpy(positions))
    return abs(float((gradient * (moved - value)).sum())) * math.sqrt(step)


def _zeroed(old: Mapping[str, Tensor], axes: Sequence[Axis], keep: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    new: dict[str, Tensor] = {}
    for axis in axes:
        gone = np.setdiff1d(np.arange(axis.size), keep[axis.name])
        for place in axis.places:
            if place.parameter not in new:
                new[place.parameter] = old[place.parameter].detach().clone()
            new[place.parameter].index_fill_(place.dim, torch.from_numpy(place.index[gone].ravel()), 0)
    return new


def _give_back(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
    entered, left = first_tensor(args, kwargs), first_tensor(out)
    return tree_map(lambda value: entered if value is left else value, out)


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
