"""One of several processes on one study: `python kill_worker.py STORE TRIALS LOG SECONDS`.

The log gets a line for each evaluation that begins and each that ends.
"""

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from archsmith.search import random_search
from archsmith.space import Choice, Space
from archsmith.study import run
from archsmith.trial import Proposal, Trial

SPACE = Space({name: Choice(range(10)) for name in "abcdef"})


@dataclass(frozen=True)
class Sleeper:
    """Sleeps, and writes down that it did."""

    log: Path
    seconds: float

    def __call__(self, proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
        """The sum of the choices, which no two evaluations can disagree on."""
        point = "".join(str(proposal.architecture[name]) for name in SPACE.choices)
        self.say("begin", point)
        time.sleep(self.seconds)
        self.say("end", point)
        return {"loss": float(sum(int(digit) for digit in point))}

    def say(self, what: str, point: str) -> None:
        """One line, in one write, so that lines of several processes do not mix."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{time.time():.3f} {what} {point} {os.getpid()}\n".encode())
        os.close(descriptor)


def work(store: str, trials: int, log: Path, seconds: float) -> list[Trial]:
    """Take part in the study until it has its trials."""
    evaluate = Sleeper(log, seconds)
    return run(SPACE, random_search(), evaluate, trials=trials, store=store, seed=3, objectives=["loss"])


if __name__ == "__main__":
    work(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
