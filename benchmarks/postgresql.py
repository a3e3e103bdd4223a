"""A PostgreSQL server of its own for a test or a measurement, in a folder that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def programs() -> Path | None:
    """The folder of the newest initdb and pg_ctl of this machine, None where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    plain = shutil.which("initdb")
    return found[-1].parent if found else Path(plain).parent if plain else None


@dataclass(frozen=True)
class Server:
    """A running server. `url`: of its one database, as SQLAlchemy takes it."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Anybody on this machine may connect: the server lives for minutes and holds nothing."""
        return f"postgresql://archsmith@127.0.0.1:{self.port}/postgres"

    def control(self, *words: str) -> None:
        """Call pg_ctl and wait until it is done."""
        own = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        where = ["-D", str(self.folder / "data"), "-o", own, "-l", str(self.folder / "log"), "-w"]
        _call("pg_ctl", *where, *words)


@contextmanager
def server() -> Iterator[Server]:
    """Start one, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="archsmith-postgresql-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, _user())
        _call("initdb", "-D", str(folder / "data"), "-U", "archsmith", "-A", "trust", "--no-sync")
        started = Server(folder, _free_port())
        started.control("start")
        try:
            yield started
        finally:
            started.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _call(program: str, *words: str) -> None:
    found = programs()
    assert found is not None, "PostgreSQL is not installed"
    # PostgreSQL does not start for root.
    who = _user() if os.getuid() == 0 else None
    subprocess.run([str(found / program), *words], check=True, stdout=subprocess.DEVNULL, user=who, cwd="/")


def _user() -> str:
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
