"""The study that tests kill and resume."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from archsmith.search import regularised_evolution
from archsmith.space import Choice, Condition, Space
from archsmith.study import run
from archsmith.trial import Proposal, Trial

SPACE = Space(
    {
        "layer": Choice([True, False]),
        "heads": Choice(range(1, 13), Condition("layer", [True])),
        "kind": Choice(["relu", "gelu", "silu"]),
        "rate": Choice([0.1, 0.2, 0.3, 0.4]),
    }
)
OBJECTIVES = ["loss", "latency_ms"]


class Evaluate:
    """A made-up landscape with noise, some failures and some NaN; picklable, so that processes can run it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        time.sleep(self.seconds)
        architecture = proposal.architecture
        if architecture["kind"] == "silu" and architecture["rate"] == 0.4:
            raise ValueError("silu at 0.4 breaks")
        loss = float("nan") if architecture.get("heads") == 5 else float(rng.normal()) + float(architecture["rate"])
        return {"loss": loss, "latency_ms": float(architecture.get("heads", 0)), "extra": 1.0}


def search(store: str, trials: int, seconds: float = 0.0, did: Path | None = None) -> list[Trial]:
    """The search; `did` gets a byte for every trial that has ended."""

    def count(trial: Trial) -> None:
        if did:
            with did.open("a") as file:
                file.write(".")

    strategy = regularised_evolution(OBJECTIVES, population=5, sample=2)
    evaluate = Evaluate(seconds)
    return run(SPACE, strategy, evaluate, trials=trials, store=store, seed=7, objectives=OBJECTIVES, on_trial=count)
