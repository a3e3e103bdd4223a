"""An anatomy survives JSON: all of it, also a certificate of a change that could not run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from archsmith.model import Anatomy, examine, realise
from archsmith.model.anatomy import Axis, Branch, Certificate, Entry, Place
from archsmith.model.record import anatomy_from_json, anatomy_to_json


def there_and_back(anatomy: Anatomy) -> Anatomy:
    return anatomy_from_json(json.loads(json.dumps(anatomy_to_json(anatomy), allow_nan=False)))


def check_equal(first: Anatomy, second: Anatomy) -> None:
    assert list(first.axes) == list(second.axes)
    for a, b in zip(first.axes.values(), second.axes.values(), strict=True):
        assert (a.name, a.kind, a.size, a.layer) == (b.name, b.kind, b.size, b.layer)
        assert (a.integers, a.entries) == (b.integers, b.entries)
        assert [(p.parameter, p.dim) for p in a.places] == [(p.parameter, p.dim) for p in b.places]
        for p, q in zip(a.places, b.places, strict=True):
            assert q.index.dtype == np.int64 and np.array_equal(p.index, q.index)
    assert list(first.branches.items()) == list(second.branches.items())
    assert first.certificates == second.certificates
    assert (dict(first.frozen), dict(first.unknown_operators)) == (dict(second.frozen), dict(second.unknown_operators))


BY_HAND = Anatomy(
    {
        "l.0.heads": Axis(
            "l.0.heads",
            "heads",
            2,
            (Place("q.weight", 0, np.array([[0, 1], [2, 3]])), Place("o.weight", 1, np.array([[1], [0]]))),
            "l.0",
            (("l.0.attn", "num_heads"),),
            (Entry("l.0.attn", "slopes", 0, 2),),
        ),
        "residual": Axis("residual", "residual", 3, ()),
    },
    {
        "l.0": Branch("l.0", "layer", "l.0", ("l.0.heads",)),
        "l.0.block": Branch("l.0.block", "attention", "l.0.attn", (), "l.0", "l.0.attn.out", 2, "l.0.norm"),
    },
    (
        Certificate("l.0", True, "", 1e-7),
        Certificate("l.1", False, "it did not run", math.inf),
    ),
    {"embed.weight[0]": "looked up"},
    {"aten::strange": 3},
)
EMPTY = Anatomy({}, {}, ())


@pytest.mark.parametrize("anatomy", [BY_HAND, EMPTY], ids=["by hand", "empty"])
def test_an_anatomy_survives_json(anatomy: Anatomy) -> None:
    check_equal(anatomy, there_and_back(anatomy))


def test_an_error_that_is_infinite_stays_so() -> None:
    found = there_and_back(BY_HAND).certificates
    assert (found[0].error, found[1].error) == (1e-7, math.inf)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_real_anatomy_survives_json_and_still_cuts(family: str, tiny: Callable[..., Any]) -> None:
    model, inputs = tiny(family)
    anatomy = examine(model, inputs, np.random.default_rng(0))
    found = there_and_back(anatomy)
    check_equal(anatomy, found)
    architecture = {name: max(1, axis.size // 2) for name, axis in found.axes.items()}
    shapes = [
        {name: p.shape for name, p in realise(model, each, architecture).named_parameters()}
        for each in (anatomy, found)
    ]
    assert shapes[0] == shapes[1]
