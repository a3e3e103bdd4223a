"""Run a search: ask the strategy, evaluate, write down, again. Everything that is searched runs through here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from archsmith.errors import BadInput, BudgetNotReachable
from archsmith.space import Space
from archsmith.study.executor import Executor, Inline, WorkerDied
from archsmith.study.store import Store
from archsmith.trial import Evaluator, Proposal, Strategy, Trial, pareto, whole

HOPELESS = 20  # trials that fail from the beginning on before a study stops by itself
FAR = 100  # the same of trials that are over a bound: others may not be
LOOK_SECONDS = 2.0  # between looks at what other processes do, where there is nothing to begin


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
    minutes: float | None = None,
    patience: int | None = None,
    stop: Callable[[], bool] | None = None,
    evaluates: str = "",
) -> list[Trial]:
    """Search until the study at `store` has `trials` trials, or the strategy has nothing left; all its trials.

    A study that was stopped goes on with the proposals that it would have made: trial k is proposed with the generator
    `default_rng([seed, k])` from the trials before it, and a trial whose worker died is evaluated again under its
    number (evaluators get `default_rng([seed, k, 1])`). With several workers a proposal depends on what had finished
    when it was asked for. An evaluation that raises, or whose objectives are missing or not finite, is a failed trial.

    Several processes and machines may run one study, each by this call. A process that has nothing left to begin stays
    while others still evaluate, since their trials are its to finish if they die.

    `alone`: the caller knows that no other process works on the study, so every trial that runs has lost its worker.
    `minutes`: after so many of wall-clock no trial begins here. `patience`: none begins once so many finished trials in
    a row have brought nothing that others do not beat. `stop`: nothing begins here once it says so. `evaluates`: what
    tells the evaluator from others; a study that had another's is refused.

    The evaluator must be picklable for an executor other than `Inline`.
    """
    executor = executor or Inline()
    record = Store.open(store, space, objectives, seed, evaluates)
    until = math.inf if minutes is None else time.monotonic() + 60.0 * minutes
    running: dict[Future[Outcome], Trial] = {}
    died: set[int] = set()

    def is_over() -> bool:
        return time.monotonic() >= until or (stop is not None and stop())

    def start(trial: Trial) -> None:
        running[executor.submit(attempt, evaluator, trial.proposal, (seed, trial.number, 1))] = trial

    def begun(proposal: Proposal, expected: int) -> Trial:
        """The trial as it was written down. A number other than the one it was proposed for says that the turn was lost
        on the way, with the database that gave it: others may have begun the very same, so it is proposed again."""
        number = record.begin(proposal)
        if number != expected:
            proposal = _ask(space, strategy, record.history()[:number], number + 1, seed) or proposal
            record.amend(number, proposal)
        return Trial(number, proposal, "running")

    def begin() -> list[Trial]:
        """What to evaluate now: what lost its worker, then new proposals."""
        free = executor.workers - len(running)
        with nullcontext() if alone else record.turn():
            history = record.history()
            found = [] if is_over() else record.adopt_orphans(history, alone, free)
            while len(found) < free and not is_over():
                if is_hopeless(history) or (patience is not None and is_stuck(history, objectives, patience)):
                    break
                proposal = _ask(space, strategy, history, trials, seed)
                if proposal is None:
                    break
                found.append(begun(proposal, len(history)))
                history = record.history() if len(found) < free else []
        return found

    try:
        while True:
            for trial in begin() if len(running) < executor.workers else []:
                start(trial)
            if not running:
                if alone or is_over() or not record.awaited(record.history()):
                    return record.history()
                time.sleep(LOOK_SECONDS)
                continue
            idle = len(running) < executor.workers and not alone
            done, _ = wait(running, timeout=LOOK_SECONDS if idle else None, return_when=FIRST_COMPLETED)
            for future in sorted(done, key=lambda each: running[each].number):
                ended, outcome = running.pop(future), _outcome(future)
                if outcome is None and ended.number not in died:  # by chance, it may be; by its doing, it dies again
                    died.add(ended.number)
                    start(ended)
                    continue
                outcome = outcome or Outcome({}, 0.0, f"{future.exception()}, twice")
                _check_named(outcome, objectives, record)
                trial = record.finish(ended.number, outcome.values, outcome.seconds, outcome.error)
                if on_trial:
                    on_trial(trial)
    finally:
        executor.close()
        record.close()


def is_stuck(history: Sequence[Trial], objectives: Sequence[str], patience: int) -> bool:
    """Whether the last `patience` finished trials have all been beaten, or equalled, by those before them.

    >>> from archsmith.space import Architecture
    >>> def trial(number, loss):
    ...     return Trial(number, Proposal(Architecture({})), "complete", {"loss": loss})
    >>> told = [trial(number, loss) for number, loss in enumerate((3.0, 1.0, 2.0, 1.0))]
    >>> is_stuck(told, ["loss"], 2), is_stuck(told, ["loss"], 3)
    (True, False)
    """
    done = whole([trial for trial in history if trial.status != "running"])
    if len(done) <= patience:
        return False
    before, last = done[:-patience], pareto(done[-patience:], objectives)
    points = np.array([[t.values[name] for name in objectives] for t in before if t.status == "complete"])
    if not len(points):
        return not last  # nothing but failures
    return all((points <= [t.values[name] for name in objectives]).all(axis=1).any() for t in last)


def is_hopeless(history: Sequence[Trial]) -> bool:
    """Whether all trials have failed, and so many that more of them would fail as well."""
    ended = [trial for trial in history if trial.status != "running"]
    if len(ended) < HOPELESS or any(trial.status != "failed" for trial in ended):
        return False
    over = sum(f"{BudgetNotReachable.__name__}: " in trial.error for trial in ended)
    return len(ended) - over >= HOPELESS or len(ended) >= FAR


def attempt(evaluator: Evaluator, proposal: Proposal, seed: tuple[int, ...]) -> Outcome:
    """Evaluate one proposal, wherever that is; what it raises becomes the reason of a failed trial."""
    began = time.perf_counter()
    try:
        values = {str(name): float(value) for name, value in evaluator(proposal, np.random.default_rng(seed)).items()}
        return Outcome(values, time.perf_counter() - began)
    except (Exception, SystemExit) as error:  # one that leaves must not take the search with it
        return Outcome({}, time.perf_counter() - began, f"{type(error).__name__}: {error}")


def _check_named(outcome: Outcome, objectives: Sequence[str], record: Store) -> None:
    """Raise `BadInput` where the first values that an evaluator gives at all are not those that are asked for."""
    missing = [name for name in objectives if name not in outcome.values]
    if missing and outcome.values and not any(trial.status == "complete" for trial in record.history()):
        law = "an evaluator gives every objective"
        raise BadInput(law, f"no {missing[0]}", "--objective", f"it gives: {', '.join(outcome.values)}")


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


def _outcome(future: Future[Outcome]) -> Outcome | None:
    """The result of an evaluation, or why there is none; None where its process died."""
    error = future.exception()
    if isinstance(error, WorkerDied):
        return None
    return Outcome({}, 0.0, f"{type(error).__name__}: {error}") if error else future.result()
