"""Where a study lies: a SQLite file, Optuna's journal, or a database; whose turn it is, and what goes wrong there."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.storages import JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend

from archsmith.errors import BadInput, first_line

HEARTBEAT_SECONDS, GRACE_SECONDS = 10, 40
PATIENCE_SECONDS, PAUSE_SECONDS = 120.0, 0.5  # a database that restarts is waited for
TURNS = 0x61726373  # the first half of the key of our locks in a PostgreSQL server that others use too
FAILURES = (
    sqlite3.Error,
    sqlalchemy.exc.SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
    OSError,
    ValueError,  # a journal that was damaged, a URL whose port is no number
    ImportError,  # the driver of a database
    RuntimeError,  # Optuna's word for tables of another version
)
LOST = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.PendingRollbackError,  # Optuna asks again in another way behind an OperationalError of its own
)


class Storage:
    """Optuna's storage at a location: a file (SQLite; `.journal` for a journal) or a URL (`postgresql://...`).

    Every method of Optuna's is there under its name. Those of a database that has been reached once wait for it while
    it is away.
    """

    def __init__(self, location: str) -> None:
        self.location = location = plain(location)
        if location in ("sqlite://", ":memory:", "", "/"):
            raise BadInput("a study outlives its process", repr(location), "--store", "name a file or a database")
        self._rdb: RDBStorage | None = None
        self._patient = False
        if location.endswith(".journal"):
            Path(location).parent.mkdir(parents=True, exist_ok=True)
            _check_journal(Path(location))
            self._inner: Any = JournalStorage(JournalFileBackend(location, lock_obj=_JournalLock(location)))
        else:
            self._rdb = _database(location)
            self._inner = get_storage(self._rdb)
            self._patient = "://" in location

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(patiently, found) if self._patient and callable(found) else found

    @property
    def inner(self) -> Any:
        """Optuna's own object, for Optuna's functions that ask its type."""
        return self._inner

    @property
    def beats(self) -> bool:
        """Whether workers leave heartbeats here."""
        return self._rdb is not None

    def stale(self, study_id: int) -> set[int]:
        """Ids of trials whose worker's heartbeat has stopped."""
        return set(self._get_stale_trial_ids(study_id)) if self.beats else set()

    def turn(self, study_id: int) -> AbstractContextManager[None]:
        """The only process that looks at a study and then writes."""
        return turn(self.location, study_id, None if self._rdb is None else self._rdb.engine)

    def close(self) -> None:
        """Let go of the file or the connection."""
        if self._rdb is not None:
            self._rdb.remove_session()
            self._rdb.engine.dispose()


def plain(location: str) -> str:
    """A location as it is looked at: that of a SQLite file is its path, however it is written.

    >>> plain("sqlite:///runs/study.db"), plain("postgresql://host/db")
    ('runs/study.db', 'postgresql://host/db')
    """
    return location.removeprefix("sqlite:///")


def _check_journal(path: Path) -> None:
    """Raise `BadInput` for a file that is no journal, before anything is written into it."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb") as file:
        first = file.readline()
    try:
        ours = "op_code" in json.loads(first)
    except (ValueError, TypeError):
        ours = False
    if not ours:
        raise BadInput("a .journal is what Optuna writes", repr(first[:40]), str(path), "name another file")


class _JournalLock:
    """A lock that goes with its process: Optuna's own stays behind a killed one for half a minute."""

    def __init__(self, location: str) -> None:
        self._file = Path(location)
        self._lock = filelock.FileLock(f"{location}.lock", timeout=PATIENCE_SECONDS)

    def acquire(self) -> bool:
        """Wait for it. Half a line at the end is of a writer that was killed, or had no room: it goes, since whatever
        came behind it could not be read."""
        self._lock.acquire()
        with self._file.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()


def has_study(location: str) -> bool:
    """Whether a study is there. Who only looks makes nothing: no file, and none of the tables that another process may
    be making in this moment, which would fail by it."""
    location = plain(location)
    if "://" not in location and not Path(location).is_file():
        return False
    if location.endswith(".journal"):
        return True
    engine = sqlalchemy.create_engine(url_of(location), poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as connection:
            named = sqlalchemy.text("SELECT 1 FROM studies WHERE study_name = 'search'")
            made = sqlalchemy.inspect(connection).has_table("studies")
            return made and connection.execute(named).first() is not None
    finally:
        engine.dispose()


def url_of(location: str) -> str:
    """What SQLAlchemy calls a location that is no journal."""
    return location if "://" in location else f"sqlite:///{Path(location).absolute()}"


def _database(location: str) -> RDBStorage:
    options: dict[str, Any] = {"pool_pre_ping": True}
    if "://" not in location:
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(location, timeout=60)
        with suppress(sqlite3.OperationalError):  # a file that may only be read
            connection.execute("PRAGMA journal_mode=WAL")  # kept in the file: readers do not block the writer
        connection.close()
        options = {"connect_args": {"timeout": 60}}
    beats = {"heartbeat_interval": HEARTBEAT_SECONDS, "grace_period": GRACE_SECONDS}
    return RDBStorage(url_of(location), engine_kwargs=options, **beats)


@contextmanager
def turn(location: str, study_id: int = 0, engine: sqlalchemy.Engine | None = None) -> Iterator[None]:
    """One process at a time: by a lock beside a file, by an advisory lock in PostgreSQL. It goes with its process.

    In another database there is none: two processes may then propose the same. `study_id` 0 is that of no study: whose
    turn it is to make one.
    """
    location = plain(location)
    if "://" not in location:
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{location}.turn"):
            yield
        return
    mine = engine or sqlalchemy.create_engine(location)
    try:
        if mine.dialect.name != "postgresql":
            yield
            return
        connection = patiently(partial(_locked, mine, study_id)) if engine is not None else _locked(mine, study_id)
        try:
            yield
        finally:
            with suppress(*LOST):  # a server that goes away lets go of it too
                connection.close()  # ends the transaction, and the lock with it
    finally:
        if engine is None:
            mine.dispose()


def _locked(engine: sqlalchemy.Engine, study_id: int) -> sqlalchemy.Connection:
    """A connection in a transaction that holds the lock of a study."""
    connection = engine.connect()
    try:
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({TURNS}, {int(study_id)})"))
    except BaseException:
        connection.close()
        raise
    return connection


def patiently(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The call's result; it is made again while the database cannot be reached, for two minutes."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return call(*args, **kwargs)
        except (*LOST, optuna.exceptions.StorageInternalError) as error:
            lost = isinstance(error, LOST) or isinstance(error.__cause__, LOST)
            if not lost or time.monotonic() > until:
                raise
            time.sleep(PAUSE_SECONDS)


@contextmanager
def plain_errors(location: str) -> Iterator[None]:
    """What goes wrong in a store, said on one line, and without the password of a database."""
    try:
        yield
    except BadInput:
        raise
    except KeyError as error:
        raise BadInput("a study must exist to be read", "none named search", shown(location)) from error
    except FAILURES as error:
        reason = first_line(error.__cause__ or error)
        raise BadInput("a study's store must be readable and writable", reason, shown(location)) from error


def shown(location: str) -> str:
    """A location as it may be shown.

    >>> shown("postgresql://me:secret@host/db"), shown("runs/study.db"), shown("postgresql://host/db?password=secret")
    ('postgresql://me:***@host/db', 'runs/study.db', 'postgresql://host/db')
    """
    if "://" not in location:
        return location
    try:
        return sqlalchemy.make_url(location).set(query={}).render_as_string()
    except (sqlalchemy.exc.ArgumentError, ValueError):  # no URL, which is what the error is about
        return f"{location.partition('://')[0]}://..."


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna announces studies and experimental options; neither is news to our users."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
