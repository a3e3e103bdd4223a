"""Declared spaces: architectures drawn, checked and counted a second; NAS-Bench-201's published parameter counts.

Checking runs every module that differs (in kind, options or input) on the meta device, once, and every join by shape.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from record import Record, main

from archsmith.build import Blueprint, Signal, known_space, network, planned
from archsmith.errors import BadInput
from archsmith.evaluate.paper import paper_costs

SIGNAL, GIVEN = Signal((3, 32, 32)), {"classes": 10}
EDGES = ("0->1", "0->2", "1->2", "0->3", "1->3", "2->3")
CHAINS, CELLS = 500.0, 50.0  # a second


def run(record: Record, options: argparse.Namespace) -> None:
    """Chains on paper, cells made on the meta device, one thread; parameters of 100 random cells against the table."""
    torch.set_num_threads(1)
    drawn(known_space("chain"), 300, made=False)  # each module is run once, on its first use
    pace = 2000 / drawn(known_space("chain"), 2000, made=False, seed=1)
    record.say("chain: drawn, checked and counted a second", pace, "", pace >= CHAINS)
    drawn(known_space("nb201"), 50, made=False)
    pace = 500 / drawn(known_space("nb201"), 500, made=False, seed=1)
    record.say("nb201: drawn, checked on the meta device and counted a second", pace, "", pace >= CELLS)
    pace = 50 / drawn(known_space("nb201"), 50, made=True, seed=1)
    record.say("nb201: made and run whole there too, to the same shape, a second", pace)
    table = np.load(record.data / "data" / "nb201" / "nb201.npz")
    rows = np.random.default_rng(0).choice(len(table["ops"]), 100, replace=False)
    wrong = [int(row) for row in rows if counted(table, int(row)) != table["cifar10_params"][row]]
    record.say("nb201: cells of 100 with another count of parameters than published", wrong, "", not wrong)
    first = [counted(table, row) for row in (0, 1)]
    record.say("nb201: parameters of the cells 0 and 1", first, "", first == [129306, 802426])


def drawn(blueprint: Blueprint, count: int, made: bool, seed: int = 0) -> float:
    """Seconds to draw so many architectures, check that each can run, and count what it costs."""
    rng = np.random.default_rng(seed)
    began = time.perf_counter()
    for _ in range(count):
        try:
            plan = planned(blueprint.static(blueprint.space.sample(rng), GIVEN), SIGNAL)
        except BadInput:
            continue  # pooled until nothing was left: checked, and refused
        assert paper_costs(plan)["macs"] >= 0
        if made:
            with torch.device("meta"), torch.no_grad():
                assert network(plan).eval()(SIGNAL.example(1)).shape == (1, 10)
    return time.perf_counter() - began


def counted(table: dict[str, np.ndarray], row: int) -> int:
    """Parameters of the network of one cell of the table, as it is made."""
    point = {edge: str(table["op_names"][op]) for edge, op in zip(EDGES, table["ops"][row], strict=True)}
    with torch.device("meta"):
        built = network(planned(known_space("nb201").static(point, GIVEN), SIGNAL))
    return sum(p.numel() for p in built.parameters())


if __name__ == "__main__":
    main("building", run)
