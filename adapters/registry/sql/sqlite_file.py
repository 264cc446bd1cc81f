"""A registry's database in a file of SQLite."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from rootstock.adapters.errors import RegistryUnavailable
from rootstock.adapters.registry.sql.resolutions import Resolutions

_WRITES = "rootstock_writes"
T = TypeVar("T")


class SqliteFile:
    """A database file. A program that uses it holds the home that the file is in, so no other program writes.

    It is safe all the same if several programs have it open: a write locks the whole file.
    """

    def __init__(self, url: URL, patience: float) -> None:
        """Open the file at `url`, and create it as needed. A transaction waits `patience` seconds for a lock."""
        self.name = url.render_as_string(hide_password=True)
        self._file = _file(url)
        self.reader: Engine = _engine(url, self._file, patience)
        self.writer: Engine = self.reader.execution_options(**{_WRITES: True})
        self._identity: tuple[int, int] | None = None
        self._guard = threading.Lock()

    def check_present(self) -> None:
        """Do nothing: a file answers at once."""

    def check_same(self) -> None:
        """Raise RegistryUnavailable if another file has replaced the one of the first call, or if it is gone."""
        identity = _identity(self._file)
        if self._identity is None:
            self._identity = identity
        elif identity != self._identity:
            raise RegistryUnavailable(
                f"{self.name} was removed or replaced while in use; put the file back and restart the program"
            )

    def enter_upgrade(self, connection: Connection) -> None:
        """Do nothing: a transaction of `writer` holds the lock on the file from its start."""

    def announce(self, session: Session, revision: int, name: str | None) -> None:
        """Do nothing: other programs ask for the revision."""

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Take this program's one lock on bytes; only one program at a time holds a home."""
        with self._guard:
            yield

    def protect(self, session: Session, digest: str) -> None:
        """Do nothing: `guarding` lets nobody else in."""

    def exclude(self, session: Session, digest: str) -> None:
        """Do nothing: `guarding` lets nobody else in."""

    def explain(self, error: DBAPIError | PoolTimeout, opening: bool) -> RegistryUnavailable:
        """Return an error with SQLite's message."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        return RegistryUnavailable(
            f"{self.name} cannot be used: {cause}; check that the file exists and is writable, that the "
            "disk has room, and that no other program locks it"
        )

    def in_time(self, call: Callable[[], T]) -> T:
        """Return what `call` returns: a look-up in a file takes less than a millisecond."""
        return call()

    def follow(self, resolutions: Resolutions, changed: Callable[[], None]) -> bool:
        """Return False: SQLite tells nobody of a change."""
        return False

    def close(self) -> None:
        """Close all connections."""
        self.reader.dispose()


def _file(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ValueError(f"{url} names no file; a registry is shared, so give sqlite:///path/to/registry.db")
    return Path(url.database)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _engine(url: URL, file: Path, patience: float) -> Engine:
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": patience})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # Stop Python's sqlite3 from beginning transactions by itself, because `begin` below does it.
        connection.isolation_level = None
        for pragma in ("journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that began as a read and then writes could fail half-way on a lock. IMMEDIATE takes the
        # lock at the start.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
