"""What a declared network costs on paper, before it is made: parameters, multiply-accumulates, bytes of its weights."""

from __future__ import annotations

import json
from functools import cache

import torch

from archsmith.build import pieces
from archsmith.build.network import Network
from archsmith.build.pieces import made
from archsmith.build.plan import Joined, Part, parts_of
from archsmith.build.signal import Signal
from archsmith.cost.count import count


def paper_costs(plan: Part) -> dict[str, float]:
    """`parameters`, `macs` of one row and `weight_bytes` (fp32) of a planned network: the sums of its modules'.

    What each module costs is counted once for its options and its input, so ten thousand networks cost little more
    than the modules that they are made of.
    """
    counted = [_costs(piece.kind, piece.options, piece.gets) for piece in pieces(plan)]
    parameters, macs, weights = (float(sum(each)) for each in zip(*counted, strict=True)) if counted else (0.0,) * 3
    macs += sum(_asked(each) for each in parts_of(plan) if isinstance(each, Joined) and each.how == "attend")
    return {"parameters": parameters, "macs": macs, "weight_bytes": weights}


def _asked(attention: Joined) -> int:
    """Multiply-accumulates of queries with keys, and of what comes out with values."""
    queries, keys, values = (part.gives for part in attention.parts)
    return queries.shape[0] * keys.shape[0] * (keys.channels + values.channels)


@cache
def _costs(kind: str, options: str, signal: Signal) -> tuple[int, int, int]:
    with torch.device("meta"):
        costs = count(Network(made(kind, json.loads(options), signal)), {"x": signal.example()})
    return costs.parameters, costs.macs, costs.weight_bytes
