"""NAS-Bench-201 (Dong & Yang 2020): cells of four nodes whose six edges each carry one of five operators.

Edges by (from, to): 0->1, 0->2, 1->2, 0->3, 1->3, 2->3. Errors are in per cent, after 200 epochs unless "@12".
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from archsmith.errors import BadInput, first_line
from archsmith.evaluate.tabular import Table, with_scores
from archsmith.space import Architecture, Choice, Space

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NAMES = tuple(f"{a}->{b}" for a, b in EDGES)
OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
DATA = ("cifar10", "cifar100")
WORKING = OPERATORS[2:]  # those that compute something
SPACE = Space({name: Choice(OPERATORS) for name in NAMES})
PATHS = tuple(path for length in range(4) for path in product(WORKING, repeat=length))
WHOLE, SHORT = 200, 12  # epochs


def read_npz(path: str | Path, data: str = "cifar10") -> Table:
    """The table of one of the data sets "cifar10" and "cifar100", out of arrays by row.

    Columns, minimised: `val_error`, `test_error` in per cent, both also "@12"; `parameters`; `naswot` with its sign
    turned; `latency_ms_DEVICE`. Raises `BadInput` for a file that is not that.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput("a benchmark file must be whole", first_line(error), str(path)) from error
    if data not in DATA:
        raise BadInput("these arrays are of two data sets", data, str(path), f"there are: {', '.join(DATA)}")
    wanted = ["ops", "op_names", *(f"{data}_{part}{epochs}" for part in ("val", "test") for epochs in (SHORT, WHOLE))]
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise BadInput(
            "a NAS-Bench-201 file has these arrays", f"no {missing[0]}", str(path), "check data set and version"
        )
    operators = [str(name) for name in arrays["op_names"]]
    if sorted(operators) != sorted(OPERATORS) or arrays["ops"].shape != (len(OPERATORS) ** len(EDGES), len(EDGES)):
        law = "a NAS-Bench-201 file has 15,625 cells of six edges and five operators"
        raise BadInput(law, f"{arrays['ops'].shape}, {operators}", str(path))
    short = [name for name, array in arrays.items() if name != "op_names" and len(array) != len(arrays["ops"])]
    if short:
        law = "a NAS-Bench-201 file has a number for every cell"
        raise BadInput(law, f"{len(arrays[short[0]])} of {short[0]}", str(path), "download it again")
    rows = {tuple(operators[op] for op in cell): row for row, cell in enumerate(arrays["ops"].tolist())}
    columns = {
        "val_error": 100.0 - arrays[f"{data}_val{WHOLE}"].astype(float),
        "test_error": 100.0 - arrays[f"{data}_test{WHOLE}"].astype(float),
        f"val_error@{SHORT}": 100.0 - arrays[f"{data}_val{SHORT}"].astype(float),
        f"test_error@{SHORT}": 100.0 - arrays[f"{data}_test{SHORT}"].astype(float),
    }
    columns |= {f"latency_ms_{n[4:]}": array.astype(float) for n, array in arrays.items() if n.startswith("lat_")}
    if "cifar10_params" in arrays:
        columns["parameters"] = arrays["cifar10_params"].astype(float)
    if f"{data}_naswot" in arrays:
        columns["naswot"] = -arrays[f"{data}_naswot"].astype(float)

    def row_of(architecture: Architecture) -> int:
        return rows[tuple(str(architecture[name]) for name in NAMES)]

    untrained = [columns[name] for name in ("parameters", "naswot") if name in columns]
    features = with_scores(paths, row_of, untrained) if untrained else paths
    levels = (float(SHORT), float(WHOLE))
    return Table(f"nb201-{data}", SPACE, columns, row_of, features, "val_error", ("test_error",), levels)


def canonical(architecture: Architecture) -> str:
    """A string that cells share which compute the same: 6,466 of them.

    Each node is the sorted sum of what enters it; a skip is the node that it comes from, nothing comes of "none".

    >>> a, b = (Architecture(dict(zip(NAMES, ops))) for ops in (
    ...     ("skip_connect", "none", "none", "nor_conv_3x3", "none", "none"),
    ...     ("skip_connect", "none", "none", "none", "nor_conv_3x3", "none")))
    >>> canonical(a) == canonical(b)
    True
    """
    nodes = ["in"]
    for node in range(1, 4):
        entering = []
        for (start, end), name in zip(EDGES, NAMES, strict=True):
            if end == node:
                operator = architecture[name]
                if operator == "none" or nodes[start] == "#":
                    entering.append("#")
                else:
                    entering.append(nodes[start] if operator == "skip_connect" else f"({nodes[start]})@{operator}")
        nodes.append("+".join(sorted(entering)))
    return nodes[3]


def unique(table: Table) -> Table:
    """The same with cells that compute the same as one: each has the values of the first of them, so there are 6,466
    rows. (Trained apart, they differ by the noise of training.)"""
    points = list(table.space.points())
    names = [canonical(point) for point in points]
    first: dict[str, int] = {}
    for name, point in zip(names, points, strict=True):
        row = table.row_of(point)
        first[name] = min(row, first.get(name, row))
    kept = sorted(first.values())
    place = {row: index for index, row in enumerate(kept)}
    rows = {point: place[first[name]] for name, point in zip(names, points, strict=True)}
    columns = {name: column[kept] for name, column in table.columns.items()}
    return replace(table, name=f"{table.name}-unique", columns=columns, row_of=rows.__getitem__)


def paths(architecture: Architecture) -> np.ndarray:
    """(40,) how many ways from input to output go through each sequence of working operators (White et al. 2021,
    BANANAS): skips leave no trace, "none" cuts a way."""
    counts = np.zeros(len(PATHS))
    for way in WAYS:
        operators = [str(architecture[NAMES[edge]]) for edge in way]
        if "none" not in operators:
            counts[PLACES[tuple(each for each in operators if each in WORKING)]] += 1
    return counts


def _ways(node: int = 3) -> Sequence[tuple[int, ...]]:
    """All ways from input to this node, as edges."""
    if node == 0:
        return [()]
    return [(*way, edge) for edge, (a, b) in enumerate(EDGES) if b == node for way in _ways(a)]


WAYS = _ways()
PLACES = {path: place for place, path in enumerate(PATHS)}
