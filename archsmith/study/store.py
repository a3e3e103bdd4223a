"""The record of one search: an Optuna study, so optuna-dashboard and Optuna's plots open it.

A location is a file (SQLite; `.journal` for Optuna's journal) or a database URL (`postgresql://…`). Trials are written
past Optuna's samplers and read into our frozen records, of which only the unfinished are read again.
"""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
import sqlalchemy.exc
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from archsmith.errors import BadInput
from archsmith.space import JSON, Architecture, Space
from archsmith.trial import Proposal, Status, Trial

SCHEMA = 1
HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 40
FAILURES = (
    sqlite3.Error,
    sqlalchemy.exc.SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
    OSError,
    ImportError,  # the driver of a database
    RuntimeError,  # Optuna's word for tables of another version
)
STATUS: Mapping[TrialState, Status] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
}


class Store:
    """The trials of one search at one location; create with `open`, for another's with `read`."""

    def __init__(self, location: str, study: Any, about: JSON) -> None:
        self.location = location
        self.space = Space.from_json(about["space"])
        self.objectives = tuple(about["objectives"])
        self.seed = int(about["seed"])
        self._study_id = study._study_id
        self._storage = study._storage
        self._trials: list[Trial] = []
        self._ids: dict[int, int] = {}
        self._mine: set[int] = set()
        self._closed = threading.Event()
        if isinstance(getattr(self._storage, "get_heartbeat_interval", lambda: None)(), int):
            threading.Thread(target=self._beat, daemon=True).start()

    @classmethod
    def open(cls, location: str | Path, space: Space, objectives: Sequence[str], seed: int) -> Store:
        """Create the study, or go on with the one that is there.

        Raises `BadInput` where that one has another space, other objectives or another seed, and for a location that is
        locked, read-only, of a newer schema or no study at all.
        """
        about = {"schema": SCHEMA, "space": space.to_json(), "objectives": list(objectives), "seed": seed}
        if not objectives:
            raise BadInput("a study must have at least one objective", "none")
        with _plain_errors(str(location)), _quiet():
            study = optuna.create_study(
                study_name="search",
                storage=_storage(str(location)),
                directions=["minimize"] * len(objectives),
                load_if_exists=True,
            )
            found = study.user_attrs.get("archsmith")
            if found is None and not study.get_trials(deepcopy=False):
                study.set_metric_names(list(objectives))
                study.set_user_attr("archsmith", about)
                found = about
        _check_same(found, about, str(location))
        return cls(str(location), study, about)

    @classmethod
    def read(cls, location: str | Path) -> Store:
        """The study at a location, whatever it searches. Raises `BadInput` where there is none."""
        if "://" not in str(location) and not Path(location).is_file():
            raise BadInput("a study must exist to be read", "nothing", str(location))
        with _plain_errors(str(location)), _quiet():
            study = optuna.load_study(study_name="search", storage=_storage(str(location)))
            about = study.user_attrs.get("archsmith")
        _check_same(about, about, str(location))
        return cls(str(location), study, about)

    def history(self) -> list[Trial]:
        """All trials in order of their numbers, those that run elsewhere included."""
        with _plain_errors(self.location):
            frozen = self._storage.get_all_trials(self._study_id, deepcopy=False)
        for trial in frozen:
            if trial.number == len(self._trials):
                self._trials.append(self._record(trial))
                self._ids[trial.number] = trial._trial_id
            elif self._trials[trial.number].status == "running":
                self._trials[trial.number] = self._record(trial)
        return list(self._trials)

    def begin(self, proposal: Proposal) -> int:
        """Write a proposal down as a running trial of this process; its number."""
        architecture = proposal.architecture
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(architecture),
            distributions={name: CategoricalDistribution(self.space.choices[name].values) for name in architecture},
            user_attrs={"proposal": proposal.to_json(), "worker": _this_worker()},
        )
        with _plain_errors(self.location):
            trial_id = self._storage.create_new_trial(self._study_id, template_trial=template)
            number = int(self._storage.get_trial_number_from_id(trial_id))
        self._ids[number] = trial_id
        self._own(number)
        return number

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
        with _plain_errors(self.location):
            try:
                self._storage.set_trial_user_attr(trial_id, "result", result)
                self._storage.set_trial_state_values(trial_id, state, objectives)
            except optuna.exceptions.UpdateFinishedTrialError:
                pass
        self._mine.discard(number)
        return self.history()[number]

    def adopt_orphans(self, alone: bool = False) -> list[Trial]:
        """Running trials whose worker is dead, from now on run by this process under their old numbers.

        A worker of this machine is dead when its process is; one elsewhere when its heartbeat has stopped (SQLite and
        PostgreSQL; the journal has none, so there it counts as alive). Where this process is `alone`, all others are.
        """
        self.history()
        stale: set[int] = set()
        if isinstance(getattr(self._storage, "get_heartbeat_interval", lambda: None)(), int):
            with _plain_errors(self.location):
                stale = set(self._storage._get_stale_trial_ids(self._study_id))
        orphans = []
        for trial in self._trials:
            if trial.status == "running" and trial.number not in self._mine:
                trial_id = self._ids[trial.number]
                with _plain_errors(self.location):
                    worker = self._storage.get_trial_user_attrs(trial_id).get("worker", {})
                if alone or trial_id in stale or _is_dead(worker):
                    with _plain_errors(self.location):
                        self._storage.set_trial_user_attr(trial_id, "worker", _this_worker())
                    self._own(trial.number)
                    orphans.append(trial)
        return orphans

    def close(self) -> None:
        """Stop the heartbeat and let go of the file or the connection."""
        self._closed.set()
        backend = getattr(self._storage, "_backend", None)
        if isinstance(backend, RDBStorage):
            backend.remove_session()
            backend.engine.dispose()

    def _own(self, number: int) -> None:
        self._mine.add(number)
        if hasattr(self._storage, "record_heartbeat"):
            with _plain_errors(self.location):
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
        values = {} if status == "running" else result.get("values", {})
        return Trial(frozen.number, proposal, status, values, self.seed, float(result.get("seconds", 0.0)), error)


def _storage(location: str) -> Any:
    if location.endswith(".journal"):
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(location))
    url, options = location, {}
    if "://" not in location:
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(location, timeout=60)
        connection.execute("PRAGMA journal_mode=WAL")  # kept in the file: readers do not block the writer
        connection.close()
        url, options = f"sqlite:///{Path(location).absolute()}", {"connect_args": {"timeout": 60}}
    storage = RDBStorage(url, engine_kwargs=options, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS)
    return get_storage(storage)


def _check_same(found: JSON, wanted: JSON, location: str) -> None:
    if found is None:
        raise BadInput("a study must have been made by archsmith", "another", location, "name another file")
    if found["schema"] > SCHEMA:
        law = f"a study must be of schema {SCHEMA} or older"
        raise BadInput(law, str(found["schema"]), location, "use the archsmith that wrote it, or a newer one")
    for part in ("space", "objectives", "seed"):
        if found[part] != wanted[part]:
            values = f"{found[part]}, not {wanted[part]}" if part != "space" else "another space"
            raise BadInput(f"a study must go on with the {part} it began with", values, location, "name another file")


def _this_worker() -> JSON:
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": psutil.Process().create_time()}


def _is_dead(worker: JSON) -> bool:
    """Whether the worker was a process of this machine that is gone; its number may have passed to another."""
    if worker.get("host") != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(worker["pid"]).create_time() - worker["born"]) > 1.0)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def _plain_errors(location: str) -> Iterator[None]:
    """What goes wrong in a store, said on one line."""
    try:
        yield
    except BadInput:
        raise
    except KeyError as error:
        raise BadInput("a study must exist to be read", "none named search", location) from error
    except FAILURES as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise BadInput("a study's store must be readable and writable", reason, location) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna announces studies and experimental options; neither is news to our users."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
