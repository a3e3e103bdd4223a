"""The place where proposals are tried: a private copy of the model, two inputs, and ways to run it changed.

Every deviation is the largest difference of the outputs over their largest magnitude, the worse of the two inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from archsmith.model.anatomy import Anatomy, Axis, Branch, Place
from archsmith.model.cut import Plan, cut, kept_positions, put_positions
from archsmith.model.reference import Reference
from archsmith.model.running import Inputs, deviation, like, main_outputs, run
from archsmith.model.share import replace, skeleton, tensors
from archsmith.model.trace import Traced, first_tensor

DOUBLE_UP_TO = 8_000_000  # parameters: beyond that double precision costs too much memory and time
Runs = list[list[Tensor]]


class Bench:
    """A private copy of a model, in double precision where it is small and runs in it, with two inputs."""

    def __init__(self, model: nn.Module, inputs: Inputs, rng: np.random.Generator) -> None:
        self.rng = rng
        self.inputs = [dict(inputs), like(inputs, rng)]
        self.model = skeleton(model).eval()
        if sum(p.numel() for p in model.parameters()) <= DOUBLE_UP_TO:
            self._double(model)
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

    def differ(self, runs: Runs, reference: Runs) -> float:
        """The worst deviation over the inputs."""
        return max(deviation(one, other) for one, other in zip(runs, reference, strict=True))

    def permuted(self, axes: Sequence[Axis], orders: Mapping[str, np.ndarray], only: Place | None = None) -> float:
        """How far the outputs move when the units of these axes are permuted, at all places or at one only."""
        changed = [Axis(a.name, a.kind, a.size, (only,)) if only else a for a in axes]
        model = skeleton(self.model)
        put_positions(model, kept_positions(draft(changed, orders), tensors(model)))
        return self.differ(self.run(model), self.outputs)

    def cut(self, axes: Sequence[Axis], keep: Mapping[str, np.ndarray]) -> Runs:
        """The outputs of the model that is really cut."""
        return self.run(cut(self.model, draft(axes, keep)))

    def masked(self, axes: Sequence[Axis], keep: Mapping[str, np.ndarray], norms: Traced, atoms: Sequence[Any]) -> Runs:
        """The outputs of the full model with the units that are not kept set to zero, and its norms blind to them."""
        model = skeleton(self.model)
        replace(model, _zeroed(tensors(model), axes, keep))
        outputs: Runs = []
        for given in self.inputs:
            with torch.no_grad(), Reference(norms, dict(zip(atoms, keep.values(), strict=True))):
                outputs.append(main_outputs(model(**given)))
        return outputs

    def without(self, branches: Sequence[Branch]) -> Runs:
        """The outputs of the model with branches really taken out."""
        anatomy = Anatomy({}, {branch.name: branch for branch in branches}, ())
        return self.run(cut(self.model, Plan(anatomy, {}, frozenset(anatomy.branches))))

    def silenced(self, branches: Sequence[Branch]) -> Runs:
        """The outputs of the full model with these branches' last products set to zero (their biases stay)."""
        model = skeleton(self.model)
        old = tensors(model)
        exits = [model.get_submodule(branch.exit)._parameters["weight"] for branch in branches]
        replace(model, {n: torch.zeros_like(t) for n, t in old.items() if any(t is weight for weight in exits)})
        return self.run(model)

    def bypassed(self, branch: Branch) -> Runs:
        """The outputs of the full model where a layer's result is replaced by its input."""
        with _hooked(self.model.get_submodule(branch.module), _give_back):
            return self.run(self.model)

    def slopes(self, axes: Sequence[Axis], orders: Mapping[str, np.ndarray]) -> dict[tuple[str, int], float | None]:
        """(axis, place number) -> how far the outputs move, to first order, when only that place is permuted.

        A random projection of the outputs is differentiated by every tensor at once, on each input. None where no
        gradient arrives.
        """
        # Buffers are left out: running statistics have no derivative, and torch refuses to be asked for one.
        held = {n: t for n, t in self.model.named_parameters() if t.is_floating_point()}
        found: dict[tuple[str, int], float | None] = {}
        for number, given in enumerate(self.inputs):
            slope = self._gradients(held, given, self.outputs[number])
            for axis in axes:
                for i, place in enumerate(axis.places):
                    gradient = slope.get(place.parameter)
                    if gradient is None:
                        found.setdefault((axis.name, i), None)
                        continue
                    effect = _slope(held[place.parameter].detach(), gradient, place, orders[axis.name])
                    found[axis.name, i] = max(found.get((axis.name, i)) or 0.0, effect)
        return found

    def _gradients(self, held: Mapping[str, Tensor], given: Inputs, outputs: list[Tensor]) -> dict[str, Tensor | None]:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in held.items()}
        try:
            with torch.enable_grad():
                out = main_outputs(torch.func.functional_call(self.model, leaves, (), dict(given)))
                total = torch.zeros((), dtype=out[0].dtype)
                for tensor, reference in zip(out, outputs, strict=True):
                    scale = reference.abs().max().clamp_min(1e-30) * reference.numel() ** 0.5
                    weights = torch.from_numpy(self.rng.standard_normal(tuple(tensor.shape))).to(tensor)
                    total = total + (tensor * weights).sum() / scale
                gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        except (RuntimeError, NotImplementedError):
            return {}  # a forward pass that cannot be differentiated is measured place by place
        return dict(zip(leaves, gradients, strict=True))


def draft(axes: Sequence[Axis], keep: Mapping[str, np.ndarray]) -> Plan:
    """A plan on proposed axes."""
    anatomy = Anatomy({axis.name: axis for axis in axes}, {}, ())
    return Plan(anatomy, {axis.name: tuple(map(int, keep[axis.name])) for axis in axes})


def _alike(tensor: Tensor, place: Place) -> bool:
    first = tensor.index_select(place.dim, torch.from_numpy(place.index[0]))
    return all(torch.equal(first, tensor.index_select(place.dim, torch.from_numpy(unit))) for unit in place.index[1:])


def _slope(value: Tensor, gradient: Tensor, place: Place, order: np.ndarray) -> float:
    """The directional derivative along a permutation of the units at one place."""
    if place.dim > 0:  # of a table only the rows that were looked up count
        rows = gradient.flatten(1).abs().amax(1).nonzero()[:, 0]
        value, gradient = value[rows], gradient[rows]
    positions = np.arange(value.shape[place.dim])
    positions[place.index] = place.index[order]
    return abs(float((gradient * (value.index_select(place.dim, torch.from_numpy(positions)) - value)).sum()))


def _zeroed(old: Mapping[str, Tensor], axes: Sequence[Axis], keep: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    new: dict[str, Tensor] = {}
    for axis in axes:
        gone = np.setdiff1d(np.arange(axis.size), keep[axis.name])
        for place in axis.places:
            tensor = new.get(place.parameter, old[place.parameter]).detach()
            new[place.parameter] = tensor.index_fill(place.dim, torch.from_numpy(place.index[gone].ravel()), 0)
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
