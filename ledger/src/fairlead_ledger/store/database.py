"""The database: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.schema import Table

from fairlead_ledger.errors import StartupError

_SQLITE, _POSTGRESQL = "sqlite", "postgresql"
_BUSY_MS = 30_000
_LOCKS = 0x6661_6972
"""First half of this ledger's advisory locks in PostgreSQL: "fair"."""


class Database:
    """Where the ledger keeps what it knows; safe to use from any thread."""

    def __init__(self, url: str) -> None:
        """Open it; nothing is read or written yet.

        Args:
            url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/NAME``.

        Raises:
            StartupError: It is neither.
        """
        where = url_of(url)
        self.is_sqlite = where.get_backend_name() == _SQLITE
        self._writing = _engine(where, "BEGIN IMMEDIATE")
        self._reading = _engine(where, "BEGIN") if self.is_sqlite else self._writing

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Begin a transaction that writes; it is committed at the end of the block."""
        with self._writing.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that sees one state of the database throughout."""
        with self._reading.connect() as connection:
            if not self.is_sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    def share(self, connection: Connection, experiment_id: int) -> None:
        """Keep the fold of an experiment away until the transaction ends."""
        self._lock(connection, "pg_advisory_xact_lock_shared", experiment_id)

    def own(self, connection: Connection, experiment_id: int) -> None:
        """Wait until no transaction shares an experiment, and keep all away until this one ends."""
        self._lock(connection, "pg_advisory_xact_lock", experiment_id)

    def insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT that knows ON CONFLICT."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def close(self) -> None:
        """Close every connection."""
        self._writing.dispose()
        self._reading.dispose()

    def _lock(self, connection: Connection, function: str, experiment_id: int) -> None:
        if not self.is_sqlite:  # there, whoever writes is alone
            connection.execute(select(getattr(func, function)(_LOCKS, experiment_id)))


def url_of(url: str) -> URL:
    """Return a database's address with the driver that the ledger uses.

    Raises:
        StartupError: It is no address of SQLite in a file or PostgreSQL; the message has no password.
    """
    try:
        where = make_url(url)
    except (ArgumentError, ValueError):
        raise StartupError("--database is no address; give sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    match where.get_backend_name():
        case "sqlite" if where.database and where.database != ":memory:":
            return where.set(drivername="sqlite+pysqlite")
        case "postgresql":
            return where.set(drivername="postgresql+psycopg")
        case name:
            raise StartupError(f"--database {name}: give sqlite:///FILE or postgresql://USER@HOST/NAME")


def _engine(url: URL, begin: str) -> Engine:
    if url.get_backend_name() == _POSTGRESQL:
        return create_engine(
            url, pool_size=4, max_overflow=4, pool_pre_ping=True, pool_timeout=30, connect_args={"connect_timeout": 10}
        )
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # else the driver begins transactions of its own, which do not lock
    for pragma in ("journal_mode = WAL", "synchronous = FULL", f"busy_timeout = {_BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")
