"""A run's folder: the plan, the record of every finished stage, and what the stages made.

    RUN/plan.json            what was asked for, written first
    RUN/NAME/                what stage NAME made, if it made files
    RUN/stages/NAME.json     its record: {"result", "seconds"}; a stage has finished when this exists
    RUN/archsmith.log        the log
    RUN/.scratch/NAME/       where stage NAME works until it has finished

A stage ends in this order: its files and its record (as NAME.json.part) are on the disk; the folder is moved; the
record is moved. A process that dies in between leaves a state that `open` completes or clears.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from archsmith.errors import BadInput
from archsmith.space import JSON

LOCK, PLAN, PLAN_PART, LOG = ".lock", "plan.json", "plan.json.part", "archsmith.log"


class _Log(logging.FileHandler):
    """A log that says nothing where it cannot be written: the stage that fails for the same reason says it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, logging's name
        """Nothing."""


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """What this process logs meanwhile is in RUN/archsmith.log."""
    log, handler = logging.getLogger("archsmith"), _Log(path / LOG, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.propagate = False  # libraries give the root logger handlers of their own; this is said once, in the file
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # what a full disk does not take
            handler.close()


class RunDirectory:
    """One run on the disk, held by one process at a time; a context manager that lets go at its end.

    `path`: the folder. `plan`: what it was created with. `log`: writes to RUN/archsmith.log.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.plan: JSON = None
        self.log = logging.getLogger("archsmith")
        self._lock = lock
        self._logged = ExitStack()
        self._logged.enter_context(logged(path))

    @classmethod
    def create(cls, path: str | Path, plan: JSON) -> RunDirectory:
        """Begin a run in a folder that is absent or empty. Raises `BadInput` for any other, leaving it as it was."""
        path = Path(path)
        cls.check_new(path)
        with _usable(path):
            text = json.dumps(plan, indent=1, allow_nan=False)
            path.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(path)
            try:
                _write(path / PLAN_PART, text)
                (path / PLAN_PART).rename(path / PLAN)
                _sync(path)
                return cls._held(path, lock)
            except BaseException:
                os.close(lock)
                raise

    @staticmethod
    def check_new(path: str | Path) -> None:
        """Raise `BadInput` for a folder that a run cannot begin in, and make none."""
        path = Path(path)
        with _usable(path):
            # A process killed while it created the run leaves only these two.
            if path.is_dir() and {entry.name for entry in path.iterdir()} - {LOCK, PLAN_PART}:
                raise BadInput("a new run needs an empty folder", "files", str(path), "name another with --out")

    @classmethod
    def open(cls, path: str | Path, wait: bool = False) -> RunDirectory:
        """Go on with a run. Raises `BadInput` where there is none, or where a living process holds it; with `wait`,
        it is waited for."""
        path = Path(path)
        if not (path / PLAN).is_file():
            raise BadInput("a run is a folder with a plan.json", "none", str(path), "start one with archsmith optimize")
        with _usable(path):
            lock = _take_lock(path, wait)
            try:
                return cls._held(path, lock)
            except BaseException:
                os.close(lock)
                raise

    @classmethod
    def _held(cls, path: Path, lock: int) -> RunDirectory:
        (path / "stages").mkdir(exist_ok=True)
        plan = _read(path / PLAN)
        run = cls(path, lock)
        run.plan = plan
        run._recover()
        return run

    def stage(self, name: str, work: Callable[[Path], JSON]) -> JSON:
        """The result of stage `name`: from its record if it has finished, else by doing `work`.

        `work` gets a fresh empty folder, which becomes `folder(name)` if anything is in it, and returns what JSON can
        hold; what it raises, `stage` raises, and nothing of it is left. Raises `BadInput` when the disk is full.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name == "stages":
            raise BadInput("a stage's name must be lower-case letters, digits, - and _", repr(name))
        record = self._record(name)
        if record.exists():
            return _read(record)["result"]
        scratch = self.path / ".scratch" / name
        began = time.perf_counter()
        with _room(self.path):
            try:
                _clear(scratch)
                scratch.mkdir(parents=True)
                self.log.info("stage %s begins", name)
                result = work(scratch)
                seconds = round(time.perf_counter() - began, 3)
                text = json.dumps({"result": result, "seconds": seconds}, indent=1, allow_nan=False)
                self._end(name, scratch, text)
            finally:
                _clear(scratch)
                with suppress(OSError):  # a stage within a stage has its scratch there too
                    scratch.parent.rmdir()
        self.log.info("stage %s took %.1f s", name, seconds)
        return json.loads(text)["result"]

    def _end(self, name: str, scratch: Path, text: str) -> None:
        """Make a stage's folder and record appear; all of it or nothing."""
        folder, record = self.folder(name), self._record(name)
        part = record.with_name(record.name + ".part")
        if any(scratch.iterdir()) and folder.exists():
            raise BadInput(
                "what a stage makes must not be there before it", folder.name, str(self.path), "move it away"
            )
        moved = False
        try:
            _sync_tree(scratch)
            _write(part, text)
            if any(scratch.iterdir()):
                scratch.rename(folder)
                moved = True
                _sync(self.path)
            else:
                scratch.rmdir()
            part.rename(record)
        except BaseException:
            part.unlink(missing_ok=True)
            if moved and not record.exists():
                _clear(folder)
            raise
        _sync(record.parent)

    def folder(self, name: str) -> Path:
        """Where what stage `name` made is; absent if it made no files or has not finished."""
        return self.path / name

    def finished(self, name: str) -> bool:
        """Whether a stage's record exists."""
        return self._record(name).exists()

    def seconds(self) -> dict[str, float]:
        """Wall seconds of each finished stage, in the order they finished."""
        records = sorted((self.path / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return {path.stem: float(_read(path)["seconds"]) for path in records}

    def close(self) -> None:
        """Let go of the folder and its log."""
        self._logged.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _record(self, name: str) -> Path:
        return self.path / "stages" / f"{name}.json"

    def _recover(self) -> None:
        """Complete what had only its record left to move; clear every other leftover of a killed stage."""
        for part in (self.path / "stages").glob("*.json.part"):
            name = part.name.removesuffix(".json.part")
            if (self.path / ".scratch" / name).exists():
                part.unlink()  # the folder was not moved yet, so the stage had not ended
            else:
                part.rename(self._record(name))
        _clear(self.path / ".scratch")


def _take_lock(path: Path, wait: bool = False) -> int:
    """A descriptor that holds the folder. The system lets go of it when the process dies, however that is."""
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        holder = os.read(descriptor, 100).decode(errors="replace")
        os.close(descriptor)
        raise BadInput("one process at a time may work in a run", f"process {holder} in it", str(path)) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _write(path: Path, text: str) -> None:
    """Write a file whose name is not yet final, down to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _read(path: Path) -> JSON:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput("a run's records must be readable JSON", str(error), str(path)) from error


def _sync(path: Path) -> None:
    """Make sure that a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            _sync(Path(root) / name)
        _sync(Path(root))


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """A folder that cannot be made, entered or written to, said on one line."""
    try:
        with _room(path):
            yield
    except OSError as error:
        at = str(error.filename or path)
        raise BadInput("a run's folder must be writable", str(error.strerror), at, "name another") from error


@contextmanager
def _room(path: Path) -> Iterator[None]:
    """A full disk, said on one line; anything else passes."""
    try:
        yield
    except BadInput:
        raise
    except Exception as error:
        if any(_is_full(each) for each in _chain(error)):
            remedy = f"free some space and run archsmith resume {path}; finished stages are kept"
            raise BadInput("the disk must have room for the run", "none left", str(path), remedy) from error
        raise


def _is_full(error: BaseException) -> bool:
    # safetensors and torch wrap the system's error and keep only its text.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and all that it came from; libraries wrap the system's."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or at.__context__
    return found
