"""One row of the matrix: a model built, examined, cut in all its axes at once, saved, loaded, exported."""

from __future__ import annotations

import copy
import inspect
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import torch
import zoo_images  # noqa: F401  (its graphs enter the zoo)
import zoo_tokens  # noqa: F401
from torch import Tensor, nn
from zoo import ZOO

from archsmith.cost import RUNTIMES, arrays
from archsmith.model import Anatomy, Axis, cut, examine, plan
from archsmith.model.load import Loaded
from archsmith.model.pretrained import load_saved
from archsmith.model.running import deviation, like, main_outputs
from archsmith.model.running import run as outputs_of
from archsmith.model.save import load_exported, save

SAME = 1e-4  # of the output's scale


def failed(name: str, reason: str) -> dict[str, Any]:
    """The row of what gave none."""
    return {"name": name, "passed": False, "problem": reason, "found": None}


def one(name: str, export: bool) -> dict[str, Any]:
    """Build, examine, cut, save, load, export; one row."""
    animal = ZOO.get(name.removeprefix("zoo: ")) if name.startswith("zoo: ") else None
    if animal is not None:
        torch.manual_seed(0)
        model, inputs = animal.make(), dict(animal.inputs)
    else:
        try:
            model, inputs = tiny.build(name)
        except RuntimeError as error:
            return failed(name, f"not built here: {str(error)[:1500]}") | {"built": False}
    row: dict[str, Any] = {
        "name": name,
        "class": type(model).__name__,
        "inputs": {k: list(v.shape) for k, v in inputs.items()},
    }
    anatomy = examine(model, inputs, np.random.default_rng(0))
    row["found"] = widths(anatomy)
    row["axes"] = dict(Counter(axis.kind for axis in anatomy.axes.values()))
    row["branches"] = dict(Counter(branch.kind for branch in anatomy.branches.values()))
    row["unknown"] = dict(anatomy.unknown_operators)
    row["rejected"] = {c.subject: c.reason for c in anatomy.certificates if not c.accepted}
    row["share"] = round(share(model, anatomy), 1)
    if animal is not None:
        row["free"] = " ".join(sorted_free(animal.free))
    row["false"] = false_ones(model, inputs, anatomy)
    if not anatomy.axes:
        return row | {"passed": False, "problem": "no axis is certified"}
    return row | tried(model, inputs, anatomy, export)


def widths(anatomy: Anatomy) -> str:
    """The certified axes as "kind size size kind size", kinds and sizes in order."""
    sizes: dict[str, list[int]] = {}
    for axis in anatomy.axes.values():
        sizes.setdefault(axis.kind, []).append(axis.size)
    return " ".join(f"{kind} {' '.join(map(str, sorted(sizes[kind])))}" for kind in sorted(sizes))


def sorted_free(text: str) -> list[str]:
    """Kinds in order, their sizes in order, as `found` has them."""
    kinds = {kind: sorted(map(int, sizes.split())) for kind, sizes in re.findall(r"([a-z_]+)((?: \d+)+)", text)}
    return [part for kind in sorted(kinds) for part in (kind, *map(str, kinds[kind]))]


def false_ones(model: nn.Module, inputs: Mapping[str, Tensor], anatomy: Anatomy) -> list[str]:
    """Accepted axes that are none, by two checks that share no code with the certificates' own reference.

    On inputs that no certificate saw: the units of an axis in another order give the same outputs. On the given ones: a
    model cut in half of its heads and groups equals the whole model with the other heads at zero. In double precision
    where the model runs in it: in single, rounding alone moved MM-Grounding-DINO by 1.07e-4 (in double by 1.7e-13).
    """
    model, inputs = in_double(model, inputs)
    rng = np.random.default_rng(7)
    fresh = like(like(inputs, rng), rng)
    before = outputs_of(model, fresh)
    order = {name: [int(unit) for unit in rng.permutation(axis.size)] for name, axis in anatomy.axes.items()}
    after = outputs_of(cut(model, plan(anatomy, order)), fresh)
    if deviation(after, before) > SAME:
        alone = {name: outputs_of(cut(model, plan(anatomy, {name: units})), fresh) for name, units in order.items()}
        return [name for name, outputs in alone.items() if deviation(outputs, before) > SAME] or ["all at once"]
    keep = {n: range(max(1, axis.size // 2)) for n, axis in anatomy.axes.items() if plain_heads(model, axis)}
    masked = copy.deepcopy(model)
    held = {**dict(masked.named_parameters()), **dict(masked.named_buffers())}
    with torch.no_grad():
        for name, kept in keep.items():
            for place in anatomy.axes[name].places:
                held[place.parameter].movedim(place.dim, 0)[place.index[len(kept) :].ravel()] = 0
    apart = deviation(outputs_of(cut(model, plan(anatomy, keep)), inputs), outputs_of(masked, inputs))
    return [f"heads differ from the mask by {apart:.2g}"] if keep and apart > SAME else []


def in_double(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """A copy of the model and its inputs in double precision; both as they are where it makes single numbers itself."""
    precise = copy.deepcopy(model).double()
    given = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    try:
        outputs_of(precise, given)
    except Exception:  # a class may refuse in any way
        return model, inputs
    return precise, given


def plain_heads(model: nn.Module, axis: Axis) -> bool:
    """Are these heads without a norm across them? One would see the heads that a mask leaves at zero."""
    if axis.kind not in {"heads", "kv_groups"}:
        return False
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return not any(p.parameter.endswith("weight") and held[p.parameter].dim() == 1 for p in axis.places)


def tried(model: nn.Module, inputs: Mapping[str, Tensor], anatomy: Anatomy, export: bool) -> dict[str, Any]:
    """Half of every axis cut at once: does it run, come back from the disk, and export as the same?"""
    rng = np.random.default_rng(1)
    keep = {
        name: sorted(map(int, rng.choice(axis.size, max(1, axis.size // 2), replace=False)))
        for name, axis in anatomy.axes.items()
    }
    small = cut(model, plan(anatomy, keep)).eval()
    outputs = outputs_of(small, inputs)
    result: dict[str, Any] = {"cut": True}
    with tempfile.TemporaryDirectory() as scratch:
        loaded = Loaded(model, None, "tiny", "transformers", example=dict(inputs), files={})
        try:
            save(small, loaded, Path(scratch) / "model")
            back = (
                load_exported(Path(scratch) / "model" / "model.pt2", allow_code=True)
                if (Path(scratch) / "model" / "model.pt2").exists()
                else load_saved(Path(scratch) / "model")
            )
            with torch.no_grad():
                result["saved"] = deviation(main_outputs(back(**inputs)), outputs)
        except Exception as error:  # a class may refuse in any way
            return result | {"passed": False, "problem": f"not saved: {type(error).__name__}: {str(error)[:300]}"}
        if export:
            try:
                result["exported"] = exported(small, inputs, Path(scratch) / "onnx", outputs)
            except Exception as error:
                return result | {
                    "passed": False,
                    "problem": f"not exported: {type(error).__name__}: {str(error)[:300]}",
                }
    worst = max(result["saved"], result.get("exported", 0.0))
    return result | {"passed": worst <= SAME, "problem": "" if worst <= SAME else f"differs by {worst:.2g}"}


class First(nn.Module):
    """The first main output of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def first_of(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """`First` whose arguments have these names, as an exporter wants them."""
    kinds = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]

    def forward(self: First, *values: Tensor, **named: Tensor) -> Tensor:
        given = dict(zip([kind.name for kind in kinds[1:]], values, strict=False))
        return main_outputs(self.model(**given, **named))[0]

    forward.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
    made: nn.Module = type("First", (First,), {"forward": forward})(model)
    return made


def exported(small: nn.Module, inputs: Mapping[str, Tensor], folder: Path, outputs: list[Tensor]) -> float:
    """Deviation of the ONNX file in ONNX Runtime."""
    runtime = RUNTIMES["onnxruntime"]()
    artifact = runtime.export(first_of(small, inputs), inputs, {}, folder)
    found = runtime.open(artifact, 1)(arrays(inputs))
    return deviation([torch.from_numpy(np.array(found))], outputs[:1])


def share(model: nn.Module, anatomy: Anatomy) -> float:
    """Percent of the parameters that lie in a certified axis or a branch."""
    named = dict(model.named_parameters())
    held = {place.parameter for axis in anatomy.axes.values() for place in axis.places}
    inside = tuple(f"{branch.module}." for branch in anatomy.branches.values())
    total = sum(p.numel() for p in named.values())
    return 100.0 * sum(p.numel() for n, p in named.items() if n in held or n.startswith(inside)) / max(1, total)
