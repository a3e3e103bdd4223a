"""NAS-Bench-201 (Dong & Yang 2020): a cell of four places and six edges, five operators an edge, stacked 15 times.

Its network for CIFAR: 16, 32 and 64 channels, five cells each, a residual block of half the size between them.
"""

from __future__ import annotations

from archsmith.build.spec import Declared
from archsmith.space import JSON

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = tuple((low, high) for high in (1, 2, 3) for low in range(high))


def nasbench201(channels: int = 16, cells: int = 5) -> Declared:
    """15,625 cells; the choices are the edges, "0->1" to "2->3", as in the table's columns.

    >>> nasbench201().space.size
    15625
    """
    network: list[JSON] = [{"conv": {"out": channels, "kernel": 3}}, "batch_norm"]
    for stage in range(3):
        width = channels * 2**stage
        if stage:
            network.append(_reduction(width))
        network.append({"repeat": cells, "of": cell()})
    network += ["batch_norm", "relu", "mean", {"linear": {"out": "$classes"}}]
    return Declared({f"{low}->{high}": OPS for low, high in EDGES}, network)


def cell() -> JSON:
    """Places 1 to 3, each the sum of an operator on every place before it."""
    nodes = [
        {
            "name": str(high),
            "from": ["in" if low == 0 else str(low) for low in range(high)],
            "of": [{"pick": f"${low}->{high}", "of": operators()} for low in range(high)],
            "join": "add",
        }
        for high in (1, 2, 3)
    ]
    return {"graph": {"nodes": nodes}}


def operators() -> JSON:
    """The five of the paper."""
    return {
        "none": "zero",
        "skip_connect": "skip",
        "nor_conv_1x1": relu_conv_norm("in", 1),
        "nor_conv_3x3": relu_conv_norm("in", 3),
        "avg_pool_3x3": {"avg_pool": {"kernel": 3}},
    }


def relu_conv_norm(out: int | str, kernel: int, stride: int = 1) -> JSON:
    """The order in which the paper's cells have them."""
    return ["relu", {"conv": {"out": out, "kernel": kernel, "stride": stride}}, "batch_norm"]


def _reduction(out: int) -> JSON:
    block = [*relu_conv_norm(out, 3, 2), *relu_conv_norm(out, 3)]
    return {"add": [[{"avg_pool": {"kernel": 2, "stride": 2}}, {"conv": {"out": out, "kernel": 1}}], block]}
