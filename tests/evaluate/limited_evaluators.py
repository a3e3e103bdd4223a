"""Evaluators that misbehave, by the choice "what"; in a module of their own, since a child process imports them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import numpy as np

from archsmith.trial import Proposal

LEFT = f"import time; time.sleep(600)  # left by a child of {os.getppid()}"
KEPT: list[bytes] = []


def evaluate(proposal: Proposal, rng: np.random.Generator) -> Mapping[str, float]:
    """Does what it is told."""
    what = proposal.architecture["what"]
    if what == "sleeps":
        time.sleep(60)
    if what == "eats":
        while True:
            KEPT.append(b"1" * 2**25)
            time.sleep(0.01)
    if what == "a child eats":
        program = "import time\nkept = bytearray(b'1' * 2**30)\ntime.sleep(60)"
        subprocess.run([sys.executable, "-c", program], check=True)
    if what == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "leaves a child":
        subprocess.Popen([sys.executable, "-c", LEFT])
        os._exit(6)
    if what == "leaves":
        os._exit(5)
    if what == "raises":
        raise ValueError("no such width")
    return {"loss": float(rng.integers(1000)), "pid": float(os.getpid())}
