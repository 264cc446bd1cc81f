"""A registry's database in a file of SQLite."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from rootstock.adapters.errors import RegistryUnavailable, StoreFull
from rootstock.adapters.registry.sql.resolutions import Resolutions

_WRITES = "rootstock_writes"
# The codes of a disk that takes no more bytes. SQLite reports a quota as a failed write.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
T = TypeVar("T")


def takes_no_more(error: object) -> bool:
    """Return whether an error of SQLite means that its disk takes no more bytes."""
    return getattr(error, "sqlite_errorcode", None) in _FULL


class SqliteFile:
    """A database file. A server that uses it holds the home that the file is in; commands may use it meanwhile.

    A write locks the whole file.
    """

    def __init__(self, url: URL, patience: float, upgrade: bool) -> None:
        """Open the file at `url`, and create it if `upgrade`. A transaction waits `patience` seconds for a lock.

        Without `upgrade`, nothing about the file changes. Raise RegistryUnavailable then if it is missing.
        """
        self.place = url.render_as_string(hide_password=True)
        self._file = _file(url)
        if not upgrade and not self._file.exists():
            raise RegistryUnavailable("the registry's file is missing; restore a backup", place=self.place)
        self.reader: Engine = _engine(url, self._file, patience, upgrade)
        self.writer: Engine = self.reader.execution_options(**{_WRITES: True})
        self._identity: tuple[int, int] | None = None

    def check_present(self) -> None:
        """Do nothing: a file answers at once."""

    def check_same(self) -> None:
        """Raise RegistryUnavailable if another file has replaced the one of the first call, or if it is gone."""
        identity = _identity(self._file)
        if self._identity is None:
            self._identity = identity
        elif identity != self._identity:
            raise RegistryUnavailable(
                "the registry's file was removed or replaced while in use; put it back and restart the program",
                place=self.place,
            )

    def enter_upgrade(self, connection: Connection) -> None:
        """Do nothing: a transaction of `writer` holds the lock on the file from its start."""

    def announce(self, session: Session, revision: int, name: str | None) -> None:
        """Do nothing: other programs ask for the revision."""

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Take the one lock on bytes, which is on the folder of the file."""
        # Not on the file: SQLite has its own locks there, and they would end as this handle is closed.
        try:
            folder = os.open(self._file.parent, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RegistryUnavailable(
                f"the registry's folder cannot be opened: {error.strerror}; put it back and restart the program",
                place=self.place,
            ) from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def protect(self, session: Session, digest: str) -> None:
        """Do nothing: `guarding` lets nobody else in."""

    def exclude(self, session: Session, digest: str) -> None:
        """Do nothing: `guarding` lets nobody else in."""

    def explain(self, error: DBAPIError | PoolTimeout, opening: bool) -> RegistryUnavailable | StoreFull:
        """Return an error with SQLite's message as a note."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        place = f"{self.place}: {cause}"
        if takes_no_more(cause):
            return StoreFull(
                "the registry's disk takes no more bytes: it is full, at a quota or failing; free some space",
                place=place,
            )
        return RegistryUnavailable(
            "the registry cannot be used; check that its database exists and is writable, that the disk has "
            "room, and that no other program locks it",
            place=place,
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


def _engine(url: URL, file: Path, patience: float, shared: bool) -> Engine:
    file.parent.mkdir(0o700, parents=True, exist_ok=True)
    # SQLite gives its other files the mode of this one. If it cannot be made, SQLite gives the reason below. A
    # file that exists is not opened: to close it would end the locks that SQLite holds on it in this process
    # (POSIX), and another process would then remove the journal that is in use.
    with suppress(OSError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, connect_args={"timeout": patience})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # Stop Python's sqlite3 from beginning transactions by itself, because `begin` below does it.
        connection.isolation_level = None
        # A change of the journal would be a change of the file.
        journal = ("journal_mode = WAL",) if shared else ()
        for pragma in (*journal, "foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that began as a read and then writes could fail half-way on a lock. IMMEDIATE takes the
        # lock at the start.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
