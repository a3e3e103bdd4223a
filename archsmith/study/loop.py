"""Run a search: ask the strategy, evaluate, write down, again. Everything that is searched runs through here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from archsmith.errors import BadInput
from archsmith.space import Space
from archsmith.study.executor import Executor, Inline
from archsmith.study.store import Store
from archsmith.trial import Evaluator, Proposal, Strategy, Trial


@dataclass(frozen=True)
class Outcome:
    """What came of one evaluation: the values, wall seconds, and why it failed if it did."""

    values: Mapping[str, float]
    seconds: float
    error: str = ""


def run(
    space: Space,
    strategy: Strategy,
    evaluator: Evaluator,
    *,
    trials: int,
    store: str | Path,
    seed: int,
    objectives: Sequence[str],
    executor: Executor | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    alone: bool = False,
) -> list[Trial]:
    """Search until the study at `store` has `trials` trials, or the strategy has nothing left; all its trials.

    A study that was stopped goes on with the proposals that it would have made: trial k is proposed with the generator
    `default_rng([seed, k])` from the trials before it, and a trial whose worker died is evaluated again under its
    number (evaluators get `default_rng([seed, k, 1])`). With several workers a proposal depends on what had finished
    when it was asked for. An evaluation that raises, or whose objectives are missing or not finite, is a failed trial.

    `alone`: the caller knows that no other process works on the study, so every trial that runs has lost its worker.

    The evaluator must be picklable for an executor other than `Inline`.
    """
    executor = executor or Inline()
    record = Store.open(store, space, objectives, seed)
    running: dict[Future[Outcome], int] = {}

    def start(number: int, proposal: Proposal) -> None:
        running[executor.submit(attempt, evaluator, proposal, (seed, number, 1))] = number

    try:
        for orphan in record.adopt_orphans(alone):
            start(orphan.number, orphan.proposal)
        while True:
            while len(running) < executor.workers:
                proposal = _ask(space, strategy, record.history(), trials, seed)
                if proposal is None:
                    break
                start(record.begin(proposal), proposal)
            if not running:
                return record.history()
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=running.__getitem__):
                outcome = _outcome(future)
                trial = record.finish(running.pop(future), outcome.values, outcome.seconds, outcome.error)
                if on_trial:
                    on_trial(trial)
    finally:
        executor.close()
        record.close()


def attempt(evaluator: Evaluator, proposal: Proposal, seed: tuple[int, ...]) -> Outcome:
    """Evaluate one proposal, wherever that is; what it raises becomes the reason of a failed trial."""
    began = time.perf_counter()
    try:
        values = {name: float(value) for name, value in evaluator(proposal, np.random.default_rng(seed)).items()}
        return Outcome(values, time.perf_counter() - began)
    except Exception as error:
        return Outcome({}, time.perf_counter() - began, f"{type(error).__name__}: {error}")


def _ask(space: Space, strategy: Strategy, history: list[Trial], trials: int, seed: int) -> Proposal | None:
    """The next proposal; None when there are enough trials or the strategy has none."""
    number = len(history)
    if number >= trials:
        return None
    proposals = strategy(space, history, 1, np.random.default_rng([seed, number]))
    if len(proposals) > 1:
        raise BadInput("a strategy must give at most as many proposals as asked for", f"{len(proposals)} for 1")
    for proposal in proposals:
        space.check(proposal.architecture)
    return proposals[0] if proposals else None


def _outcome(future: Future[Outcome]) -> Outcome:
    """The result of an evaluation, or why its process gave none."""
    error = future.exception()
    return Outcome({}, 0.0, f"{type(error).__name__}: {error}") if error else future.result()
