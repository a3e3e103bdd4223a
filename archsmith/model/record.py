"""An anatomy as JSON, so that a run that goes on need not examine its model again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from archsmith.model.anatomy import Anatomy, Axis, Branch, Certificate, Entry, Place


def anatomy_to_json(anatomy: Anatomy) -> dict[str, Any]:
    """All of it; indices as lists of lists."""
    return {
        "axes": [
            {
                "name": axis.name,
                "kind": axis.kind,
                "size": axis.size,
                "layer": axis.layer,
                "integers": [list(pair) for pair in axis.integers],
                "entries": [asdict(entry) for entry in axis.entries],
                "places": [[place.parameter, place.dim, np.asarray(place.index).tolist()] for place in axis.places],
            }
            for axis in anatomy.axes.values()
        ],
        "branches": [asdict(branch) for branch in anatomy.branches.values()],
        "certificates": [
            # JSON knows no infinity: a change that could not run at all has none as its error.
            {**asdict(certificate), "error": certificate.error if math.isfinite(certificate.error) else None}
            for certificate in anatomy.certificates
        ],
        "frozen": dict(anatomy.frozen),
        "unknown_operators": dict(anatomy.unknown_operators),
    }


def anatomy_from_json(data: Mapping[str, Any]) -> Anatomy:
    """The inverse of `anatomy_to_json`."""
    axes = {}
    for row in data["axes"]:
        places = tuple(Place(name, dim, np.asarray(index, dtype=np.int64)) for name, dim, index in row["places"])
        integers = tuple((module, attribute) for module, attribute in row["integers"])
        entries = tuple(Entry(**entry) for entry in row.get("entries", ()))
        axes[row["name"]] = Axis(row["name"], row["kind"], row["size"], places, row["layer"], integers, entries)
    branches = {row["name"]: Branch(**{**row, "axes": tuple(row["axes"])}) for row in data["branches"]}
    certificates = tuple(
        Certificate(**{**row, "error": math.inf if row["error"] is None else row["error"]})
        for row in data["certificates"]
    )
    return Anatomy(axes, branches, certificates, data["frozen"], data["unknown_operators"])
