"""A real PostgreSQL for tests, on a port of the loopback; each test gets a database of its own."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.servers import free_port

_SETTINGS = {"max_connections": "60", "listen_addresses": "127.0.0.1"}
_HASTY = {"fsync": "off", "full_page_writes": "off"}
_USER = "postgres"


class PostgresqlServer:
    """A running server, trusted by whoever is on this machine."""

    def __init__(self, port: int, process: int) -> None:
        self.port = port
        self._process = process
        self._numbers = itertools.count()

    @property
    def address(self) -> str:
        """Of its first database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    def processes(self) -> list[int]:
        """Return the ids of all its processes."""
        children = Path(f"/proc/{self._process}/task/{self._process}/children").read_text()
        return [self._process, *map(int, children.split())]

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        return self.address.removesuffix("postgres") + name

    def end_connections(self) -> None:
        """End every connection but the one that does it, as a restart would."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


@contextmanager
def postgresql_server(*, durable: bool = False) -> Iterator[PostgresqlServer]:
    """Run a server for tests; skips where there is none.

    Args:
        durable: It waits for the disk, as in production.
    """
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="fairlead-postgresql-"))
    # PostgreSQL never runs as root.
    run: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL}
    if os.geteuid() == 0:
        account = pwd.getpwnam(_USER)
        os.chown(folder, account.pw_uid, account.pw_gid)
        run |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    store = str(folder / "store")
    subprocess.run(
        [programs / "initdb", "-D", store, "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
        check=True,
        **run,
    )
    port = free_port()
    settings = [
        word
        for name, value in (_SETTINGS if durable else _SETTINGS | _HASTY).items()
        for word in ("-c", f"{name}={value}")
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", store, "-k", str(folder), "-p", str(port), *settings], stderr=log, **run
        )
    try:
        _wait_ready(programs, port, server)
        yield PostgresqlServer(port, server.pid)
    finally:
        server.send_signal(signal.SIGINT)  # does not wait for clients to go
        server.wait(60)
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """Return the folder of the server's programs; None if there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    elsewhere = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(elsewhere).parent if elsewhere else None


def _wait_ready(programs: Path, port: int, server: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    asked: list[str | Path] = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(asked, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"PostgreSQL did not start on port {port}")
        threading.Event().wait(0.05)
