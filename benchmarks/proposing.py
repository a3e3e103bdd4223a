"""What a proposal costs, by strategy and by how many trials there are; and what a store's bookkeeping costs."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from record import Record, main

from archsmith.search import random_search, strategy
from archsmith.space import Choice, Space
from archsmith.study import Store
from archsmith.trial import Proposal, Strategy, Trial

SPACE = Space({f"edge {i}": Choice(["a", "b", "c", "d", "e"]) for i in range(6)} | {"width": Choice(range(8, 65, 8))})
CHEAP = (
    "random", "grid", "local", "annealing", "genetic", "evolution", "swarm", "q-learning", "nsga2", "asha", "hyperband",
)  # fmt: skip
MODELS = ("bohb", "deep-q", "reinforce", "ppo", "bayesian", "bananas", "boosting", "transformer")
CHEAP_MS, MODEL_MS, TRIALS = 1.0, 150.0, 500
GRID = 600  # gives a grid of 576 points; one of 448, for 500, would end and turn to random ones before the last trial
BOTH = ("evolution", "nsga2", "genetic", "bayesian")  # of several objectives, with the bounds that they have of one
STORED, FULL_MS, OPEN_SECONDS = 10_000, 60.0, 10.0
LATELY = 60  # trials that a cost is the mean of
LINEAR = 2.2  # of twice the trials, a cost that grows no faster than linearly, with a tenth for the clock


def run(record: Record, options: argparse.Namespace) -> None:
    """Milliseconds a proposal at 250 and 500 trials, without a store; then a SQLite study of 10,000 trials."""
    torch.set_num_threads(1)
    for name in (*CHEAP, *MODELS):
        kind = {"levels": (1.0, 9.0)} if name in ("asha", "hyperband", "bohb") else {}
        half, whole = proposing(strategy(name, ["loss"], budget=GRID if name == "grid" else TRIALS, **kind))
        record.say(f"{name}: at {TRIALS // 2} trials", half, "ms")
        most = CHEAP_MS if name in CHEAP else MODEL_MS
        record.say(f"{name}: at {TRIALS} trials", whole, "ms", whole <= most)
        record.say(f"{name}: growth from half of that", whole / half, "x", whole <= LINEAR * half)
    for name in BOTH:
        half, whole = proposing(strategy(name, ["loss", "size"], budget=TRIALS))
        most = MODEL_MS if name in MODELS else CHEAP_MS
        record.say(f"{name}, two objectives: at {TRIALS} trials", whole, "ms", whole <= most)
        grown = whole <= LINEAR * half
        record.say(f"{name}, two objectives: growth from half of that", whole / half, "x", grown)
    with tempfile.TemporaryDirectory() as folder:
        bookkeeping(record, Path(folder) / "study.db")


def proposing(made: Strategy) -> tuple[float, float]:
    """Mean milliseconds of the proposals up to 250 and up to 500 trials, what is trained now and then included."""
    history: list[Trial] = []
    took: list[float] = []
    for number in range(TRIALS):
        rng = np.random.default_rng([0, number])
        began = time.perf_counter()
        (proposal,) = made(SPACE, history, 1, rng)
        took.append(1e3 * (time.perf_counter() - began))
        history.append(Trial(number, proposal, "complete", {"loss": loss(proposal), "size": size(proposal)}))
    return float(np.mean(took[TRIALS // 2 - LATELY : TRIALS // 2])), float(np.mean(took[-LATELY:]))


def loss(proposal: Proposal) -> float:
    """A made-up landscape."""
    values = [hash_of(name, value) for name, value in proposal.architecture.items()]
    return float(np.sum(values) + 0.3 * values[0] * values[1])


def size(proposal: Proposal) -> float:
    """Another, which has its best points elsewhere."""
    return float(np.sum([hash_of(f"{name} of size", value) for name, value in proposal.architecture.items()]))


def hash_of(name: str, value: object) -> float:
    """A number from 0 to 1 that is the value's own."""
    return (sum(map(ord, f"{name}{value}")) * 2654435761 % 1000) / 1000


def bookkeeping(record: Record, path: Path) -> None:
    """Milliseconds of all that a study writes and reads for one trial, and seconds to open it."""
    space = Space({f"c{i}": Choice(range(20)) for i in range(6)})
    store, made = Store.open(path, space, ["loss"], 0), random_search()
    took: list[float] = []
    for number in range(STORED):
        began = time.perf_counter()
        with store.turn():
            history = store.history()
            store.adopt_orphans(history, most=1)
            (proposal,) = made(space, history, 1, np.random.default_rng([0, number]))
            begun = store.begin(proposal)
        store.finish(begun, {"loss": 1.0}, 0.1)
        took.append(1e3 * (time.perf_counter() - began))
    store.close()
    record.say("SQLite: one trial at 1,000", float(np.median(took[900:1000])), "ms")
    late = float(np.median(took[-LATELY:]))
    record.say(f"SQLite: one trial at {STORED:,}", late, "ms", late <= FULL_MS)
    began = time.perf_counter()
    opened = Store.read(path)
    count = len(opened.history())
    seconds = time.perf_counter() - began
    opened.close()
    record.say(f"SQLite: opening a study of {count:,}", seconds, "s", seconds <= OPEN_SECONDS)


if __name__ == "__main__":
    main("proposing", run)
