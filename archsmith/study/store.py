"""The record of one search: an Optuna study, so optuna-dashboard and Optuna's plots open it.

Trials are written past Optuna's samplers and read into our frozen records, of which only the unfinished are read again.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from archsmith.errors import BadInput
from archsmith.space import JSON, Architecture, Space
from archsmith.study.storage import HEARTBEAT_SECONDS, Storage, has_study, plain_errors, quiet, shown, turn
from archsmith.trial import Proposal, Status, Trial

SCHEMA = 1
OPEN: set[str] = set()  # the stores of this process that have not been closed
ATTEMPTS = 3  # workers that may die of a trial before it has failed
STATUS: Mapping[TrialState, Status] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


class Store:
    """The trials of one search at one location; create with `open`, for another's with `read`."""

    def __init__(self, storage: Storage, study: Any, about: JSON) -> None:
        self.location = storage.location
        self.space = Space.from_json(about["space"])
        self.objectives = tuple(about["objectives"])
        self.seed = int(about["seed"])
        self._study_id = study._study_id
        self._storage = storage
        self._trials: list[Trial] = []
        self._running: set[int] = set()
        self._ids: dict[int, int] = {}
        self._mine: set[int] = set()
        self._me: dict[str, Any] = {**_this_process(), "store": uuid.uuid4().hex}
        OPEN.add(self._me["store"])
        self._closed = threading.Event()
        if storage.beats:
            threading.Thread(target=self._beat, daemon=True).start()

    @classmethod
    def open(
        cls, location: str | Path, space: Space, objectives: Sequence[str], seed: int, evaluates: str = ""
    ) -> Store:
        """Create the study, or go on with the one that is there. `evaluates`: what tells its evaluator from others.

        Raises `BadInput` where that one has another space, other objectives, another seed or evaluator, and for a
        location that is locked, read-only, of a newer schema or no study at all.
        """
        about = {"schema": SCHEMA, "space": space.to_json(), "objectives": list(objectives), "seed": seed}
        if evaluates:
            about["evaluator"] = evaluates
        if not objectives:
            raise BadInput("a study must have at least one objective", "none")
        # Two processes that begin together must not both make the tables, or one see a study that is not yet described.
        with plain_errors(str(location)), quiet(), turn(str(location)):
            storage = Storage(str(location))
            study = optuna.create_study(
                study_name="search",
                storage=storage.inner,
                directions=["minimize"] * len(objectives),
                load_if_exists=True,
            )
            found = study.user_attrs.get("archsmith")
            if found is None and not study.get_trials(deepcopy=False):
                study.set_metric_names(list(objectives))
                study.set_user_attr("archsmith", about)
                found = about
        _check_same(found, about, str(location))
        return cls(storage, study, about)

    @classmethod
    def read(cls, location: str | Path) -> Store:
        """The study at a location, whatever it searches. Raises `BadInput` where there is none."""
        with plain_errors(str(location)), quiet():
            if not has_study(str(location)):
                raise BadInput("a study must exist to be read", "nothing", shown(str(location)))
            storage = Storage(str(location))
            study = optuna.load_study(study_name="search", storage=storage.inner)
            about = study.user_attrs.get("archsmith")
        _check_same(about, about, str(location))
        return cls(storage, study, about)

    def history(self) -> list[Trial]:
        """All trials in order of their numbers, those that run elsewhere included."""
        with plain_errors(self.location):
            frozen = self._storage.get_all_trials(self._study_id, deepcopy=False)
        # What has ended stays as it is, so only what ran and what is new is looked at: of 10,000 trials, a few.
        for trial in [frozen[number] for number in sorted(self._running)] + frozen[len(self._trials) :]:
            if trial.number == len(self._trials):
                self._trials.append(self._record(trial))
                self._ids[trial.number] = trial._trial_id
                self._running.add(trial.number)
            else:
                self._trials[trial.number] = self._record(trial)
            if self._trials[trial.number].status != "running":
                self._running.discard(trial.number)
        return list(self._trials)

    def begin(self, proposal: Proposal) -> int:
        """Write a proposal down as a running trial of this process; its number."""
        architecture = proposal.architecture
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(architecture),
            distributions={name: CategoricalDistribution(self.space.choices[name].values) for name in architecture},
            user_attrs={"proposal": proposal.to_json(), "worker": self._me},
        )
        with plain_errors(self.location):
            trial_id = self._storage.create_new_trial(self._study_id, template_trial=template)
            number = int(self._storage.get_trial_number_from_id(trial_id))
        self._ids[number] = trial_id
        self._own(number)
        return number

    def amend(self, number: int, proposal: Proposal) -> None:
        """Put another proposal in the place of the one that a running trial was begun with (what Optuna shows as its
        parameters stays that of the first: a database lets no parameter be written twice)."""
        with plain_errors(self.location):
            self._storage.set_trial_user_attr(self._ids[number], "proposal", proposal.to_json())

    def finish(self, number: int, values: Mapping[str, float], seconds: float, error: str = "") -> Trial:
        """Write down what came of a trial; failed where there is an error or an objective is missing or not finite.

        A trial that another worker has finished meanwhile stays as it is.
        """
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        bad = [f"{name} is {values.get(name, 'missing')}" for name in self.objectives if name not in finite]
        error = error or "; ".join(bad)
        result = {"values": finite, "seconds": seconds, "error": error}
        state, objectives = TrialState.FAIL, None
        if not error:
            state, objectives = TrialState.COMPLETE, [finite[name] for name in self.objectives]
        trial_id = self._ids[number]
        with plain_errors(self.location):
            try:
                self._storage.set_trial_user_attr(trial_id, "result", result)
                self._storage.set_trial_state_values(trial_id, state, objectives)
            except optuna.exceptions.UpdateFinishedTrialError:
                pass
            frozen = self._storage.get_trial(trial_id)
        self._mine.discard(number)
        return self._record(frozen)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One process at a time reads what there is and writes down what it will do: none proposes what another does,
        none begins a trial too many, and two never take over the same one."""
        with ExitStack() as stack:
            with plain_errors(self.location):
                stack.enter_context(self._storage.turn(self._study_id))
            yield

    def adopt_orphans(self, history: Sequence[Trial], alone: bool = False, most: int | None = None) -> list[Trial]:
        """Running trials of the history just read whose worker is dead, `most` of them, from now on run by this process
        under their old numbers.

        A worker of this machine is dead when its process is; one elsewhere when its heartbeat has stopped (SQLite and
        PostgreSQL; the journal has none, so there it counts as alive). Where this process is `alone`, all others are. A
        trial of which a third worker has died is no orphan: it has failed.
        """
        orphans: list[Trial] = []
        elsewhere = self._elsewhere(history)
        with plain_errors(self.location):
            stale = self._storage.stale(self._study_id) if elsewhere else set()
        for trial in elsewhere:
            if most is not None and len(orphans) >= most:
                break
            trial_id = self._ids[trial.number]
            worker = self._worker(trial.number)
            elsewhere_stale = trial_id in stale and not is_near(worker)
            if alone or self._left_here(worker) or elsewhere_stale or _is_dead(worker):
                attempt = int(worker.get("attempt", 1)) + 1
                if attempt > ATTEMPTS and not alone:
                    self.finish(trial.number, {}, 0.0, f"its worker died, {ATTEMPTS} times")
                    continue
                with plain_errors(self.location):
                    self._storage.set_trial_user_attr(trial_id, "worker", {**self._me, "attempt": attempt})
                self._own(trial.number)
                orphans.append(trial)
        return orphans

    def _left_here(self, worker: Mapping[str, Any]) -> bool:
        """Whether a trial of this process is run by nobody: a write was repeated because its answer was lost, or the
        study that ran it was broken off and closed."""
        same = all(worker.get(key) == self._me[key] for key in ("host", "pid", "born"))
        return same and (worker.get("store") == self._me["store"] or worker.get("store") not in OPEN)

    def awaited(self, history: Sequence[Trial]) -> bool:
        """Whether trials run in other processes whose death would be noticed here."""
        workers = [self._worker(trial.number) for trial in self._elsewhere(history)]
        return any(worker and (self._storage.beats or is_near(worker)) for worker in workers)

    def _elsewhere(self, history: Sequence[Trial]) -> list[Trial]:
        """Running trials that this store has not begun or taken over."""
        return [history[number] for number in sorted(self._running - self._mine)]

    def _worker(self, number: int) -> dict[str, Any]:
        with plain_errors(self.location):
            found: dict[str, Any] = self._storage.get_trial_user_attrs(self._ids[number]).get("worker", {})
        return found

    def close(self) -> None:
        """Stop the heartbeat and let go of the file or the connection."""
        OPEN.discard(self._me["store"])
        self._closed.set()
        self._storage.close()

    def _own(self, number: int) -> None:
        self._mine.add(number)
        if self._storage.beats:
            with plain_errors(self.location):
                self._storage.record_heartbeat(self._ids[number])

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS):
            for number in tuple(self._mine):
                try:
                    self._storage.record_heartbeat(self._ids[number])
                except Exception:  # a missed beat is made good by the next; the trial's own writes report what is wrong
                    break

    def _record(self, frozen: Any) -> Trial:
        result = frozen.user_attrs.get("result", {})
        written = frozen.user_attrs.get("proposal")
        # A trial without a proposal was put in by another tool, optuna-dashboard for one.
        proposal = Proposal.from_json(written) if written else Proposal(Architecture(frozen.params))
        status = STATUS[frozen.state]
        error = str(result.get("error", "")) or ("its worker died" if status == "failed" else "")
        # What another tool has finished has no more than its objectives.
        told = dict(zip(self.objectives, frozen.values or (), strict=False)) if status == "complete" else {}
        values = {} if status == "running" else result.get("values", told)
        return Trial(frozen.number, proposal, status, values, self.seed, float(result.get("seconds", 0.0)), error)


def _check_same(found: JSON, wanted: JSON, location: str) -> None:
    if found is None:
        raise BadInput("a study must have been made by archsmith", "another", shown(location), "name another file")
    if found["schema"] > SCHEMA:
        law = f"a study must be of schema {SCHEMA} or older"
        raise BadInput(law, str(found["schema"]), shown(location), "use the archsmith that wrote it, or a newer one")
    for part in ("space", "objectives", "seed", "evaluator"):
        if part in found and part in wanted and found[part] != wanted[part]:
            plain = part in ("objectives", "seed")
            values = f"{found[part]}, not {wanted[part]}" if plain else f"another {part}"
            raise BadInput(
                f"a study must go on with the {part} it began with", values, shown(location), "name another file"
            )


def _this_process() -> dict[str, JSON]:
    return {**_machine(), "pid": os.getpid(), "born": psutil.Process().create_time()}


@cache
def _machine() -> dict[str, str]:
    """Its name, when it was started, and among which processes we are: a container has numbers of its own for them."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    told = boot.read_text().strip() if boot.is_file() else ""
    with suppress(OSError):
        return {"host": socket.gethostname(), "boot": told, "processes": str(Path("/proc/self/ns/pid").readlink())}
    return {"host": socket.gethostname(), "boot": told, "processes": ""}


def is_near(worker: Mapping[str, Any]) -> bool:
    """Whether a worker's process would be seen from here."""
    return all(worker.get(key) == value for key, value in _machine().items())


def _is_dead(worker: JSON) -> bool:
    """Whether the worker was a process that would be seen from here and is gone, or one of this machine before it was
    started anew. A process's number may have passed to another."""
    here = _machine()
    if worker.get("host") == here["host"] and worker.get("boot", here["boot"]) != here["boot"]:
        return True
    if not is_near(worker):
        return False
    try:
        process = psutil.Process(worker["pid"])
        gone = process.status() == psutil.STATUS_ZOMBIE  # dead, and not yet noticed by the process that began it
        return bool(gone or abs(process.create_time() - worker["born"]) > 1.0)
    except psutil.NoSuchProcess:
        return True
