"""See what can change in a model, what cannot, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from archsmith.errors import BadInput
from archsmith.model import examine
from archsmith.model.load import load
from archsmith.model.record import anatomy_to_json


def inspect(source: str, *, allow_code: bool = False) -> dict[str, Any]:
    """Axes, branches, certificates, what is frozen and why, and operators without a rule, as plain data."""
    loaded = load(source, allow_code=allow_code)
    if loaded.example is None:
        remedy = "give package.module:factory, which returns the module and its inputs, with --allow-code"
        raise BadInput("a model is examined on example inputs", "none could be made", source, remedy)
    found = anatomy_to_json(examine(loaded.model, loaded.example, np.random.default_rng(0)))
    for axis in found["axes"]:
        axis["places"] = [[name, dim] for name, dim, _ in axis["places"]]
    return {"model": source, **found}
