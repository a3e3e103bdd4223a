"""What takes too long or too much, or takes its process down, is one failed trial with its reason."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from limited_evaluators import evaluate

from archsmith.errors import BadInput
from archsmith.evaluate.limited import EvaluationEnded, Limited
from archsmith.search import grid_search
from archsmith.space import Architecture, Choice, Space
from archsmith.study import LocalProcesses, run
from archsmith.trial import Proposal

BAD = {
    "sleeps": "a trial may take 0.1 minutes",
    "eats": "a trial may hold 0.6 GiB of memory; it was stopped with",
    "a child eats": "a trial may hold 0.6 GiB of memory; it was stopped with",
    "dies": "killed by signal 11",
    "leaves": "it left with code 5",
    "leaves a child": "it left with code 6",
    "raises": "ValueError: no such width",
}
SPACE = Space({"what": Choice([*BAD, "works", "works too"])})


@pytest.fixture(scope="module")
def limited() -> Iterator[Limited]:
    made = Limited(evaluate, minutes=0.1, gigabytes=0.6)
    yield made
    made.close()


def ask(limited: Limited, what: str, seed: int = 0) -> dict[str, float]:
    return dict(limited(Proposal(Architecture({"what": what})), np.random.default_rng(seed)))


def test_what_keeps_the_limits_is_as_without_them_in_one_other_process(limited: Limited) -> None:
    found = ask(limited, "works", 7)
    plain = evaluate(Proposal(Architecture({"what": "works"})), np.random.default_rng(7))
    assert found["loss"] == plain["loss"] and found["pid"] != os.getpid()
    assert ask(limited, "works")["pid"] == found["pid"]
    with pytest.raises(EvaluationEnded, match="no such width"):
        ask(limited, "raises")
    assert ask(limited, "works")["pid"] == found["pid"]


@pytest.mark.parametrize("what", BAD)
def test_what_breaks_a_limit_or_its_process_says_how_and_the_next_works(limited: Limited, what: str) -> None:
    first = ask(limited, "works")["pid"]
    began = time.monotonic()
    with pytest.raises(EvaluationEnded, match=BAD[what]):
        ask(limited, what)
    assert time.monotonic() - began < 30
    assert psutil.pid_exists(int(first)) == (what == "raises")
    assert ask(limited, "works")["loss"] == ask(limited, "works")["loss"]


def test_children_of_a_child_that_has_left_are_ended(limited: Limited) -> None:
    mark = f"left by a child of {os.getpid()}"

    def left() -> list[psutil.Process]:
        found = [each for each in psutil.process_iter(["cmdline"]) if mark in " ".join(each.info["cmdline"] or ())]
        return [each for each in found if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    with pytest.raises(EvaluationEnded, match="it left with code 6"):
        ask(limited, "leaves a child")
    until = time.monotonic() + 10
    while left() and time.monotonic() < until:
        time.sleep(0.05)
    assert not left()


def test_a_study_with_limits_in_processes_ends_whole(tmp_path: Path) -> None:
    history = run(
        SPACE, grid_search(), Limited(evaluate, 0.1, 0.6), trials=len(SPACE.choices["what"].values),
        store=tmp_path / "s.journal", seed=0, objectives=["loss"], executor=LocalProcesses(2),
    )  # fmt: skip
    assert len(history) == 9
    for trial in history:
        reason = BAD.get(str(trial.proposal.architecture["what"]))
        assert trial.status == ("complete" if reason is None else "failed")
        assert reason is None or reason in trial.error


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import numpy as np\nfrom limited_evaluators import evaluate\nfrom archsmith.evaluate.limited import Limited\n"
        "from archsmith.space import Architecture\nfrom archsmith.trial import Proposal\n"
        "if __name__ == '__main__':\n"
        "    limited = Limited(evaluate)\n"
        "    print(int(limited(Proposal(Architecture({'what': 'works'})), np.random.default_rng(0))['pid']))\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    until = time.monotonic() + 10
    while psutil.pid_exists(int(told.stdout)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not psutil.pid_exists(int(told.stdout))


def test_limits_are_above_zero_and_it_can_be_sent() -> None:
    with pytest.raises(BadInput, match="above 0"):
        Limited(evaluate, minutes=0.0)
    with pytest.raises(BadInput, match="above 0"):
        Limited(evaluate, gigabytes=float("nan"))
    made = Limited(evaluate, minutes=1.0)
    assert pickle.loads(pickle.dumps(made)).minutes == 1.0  # noqa: S301, our own
