"""Opens, upgrades, reads and writes the registry's database."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from rootstock.adapters.errors import RegistryUnavailable, UnsafeRegistry
from rootstock.adapters.registry.sql.tables import Base, RevisionRow

# The newest step in migrations/versions. Only a start on an older database imports Alembic.
HEAD = "0003"

# Alembic's table, which holds the newest step that a database has seen.
_STEPS = Table(
    "alembic_version",
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)

_WRITES = "rootstock_writes"

# Alembic keeps the running steps in a module's globals, so only one thread may run steps.
_STEPPING = threading.Lock()


class Database:
    """An upgraded database whose writes, from any thread or process, happen one after another."""

    def __init__(self, url: str, busy_timeout: float) -> None:
        self._url = make_url(url)
        self._name = self._url.render_as_string(hide_password=True)
        self._file = _file(self._url)
        self._closed = False
        self._turn = threading.Lock()
        self._patience = busy_timeout
        self._engine = _engine(self._url, self._file, busy_timeout)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        try:
            with self._translated():
                self._upgrade()
                self._identity = _identity(self._file)
        except BaseException:
            self._engine.dispose()
            raise

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that sees one state of the database and changes nothing."""
        with self._translated(), Session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[tuple[Session, int]]:
        """Yield a session and its new revision; all changes of the session are committed together, or none."""
        with self._translated(), self._in_turn(), Session(self._writer, expire_on_commit=False) as session:
            session.execute(update(RevisionRow).values(number=RevisionRow.number + 1))
            yield session, revision(session)
            session.commit()

    def ping(self) -> None:
        """Read one row; raise RegistryUnavailable if that fails or another file has replaced the opened one."""
        if _identity(self._file) != self._identity:
            raise RegistryUnavailable(
                f"{self._name} was removed or replaced while in use; put the file back and restart the program"
            )
        with self.reading() as session:
            revision(session)

    def close(self) -> None:
        """Close the database; every later call raises RegistryUnavailable."""
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        # Each earlier writer may wait for the database this long too. Without a timeout here, the waits would
        # add up until the server ran out of threads.
        if not self._turn.acquire(timeout=self._patience):
            raise RegistryUnavailable(
                f"{self._name} took longer than {self._patience:g} s for the changes ahead of this one; check "
                "that no other program locks it, and try again"
            )
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise RegistryUnavailable(f"{self._name} was closed; open a new registry")
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise RegistryUnavailable(
                f"{self._name} cannot be used: {cause}; check that the file exists and is writable, that the "
                "disk has room, and that no other program locks it"
            ) from error

    def _upgrade(self) -> None:
        with self._engine.connect() as connection:
            if _step(connection) == HEAD:
                return
        with _STEPPING, self._writer.begin() as connection:
            if inspect(connection).get_table_names():
                self._run_steps(connection)
            else:
                _create_tables(connection)

    def _run_steps(self, connection: Connection) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        folder = Path(__file__).parent / "migrations"
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        step = _step(connection)
        if step is not None and step not in known:
            raise UnsafeRegistry(
                f"{self._name} has schema {step!r}, and this program knows schemas only up to {HEAD!r}; "
                "use the newer program that wrote it, or restore a backup"
            )
        command.upgrade(config, "head")


def _create_tables(connection: Connection) -> None:
    """Create the newest schema at once, and record it as Alembic's steps would.

    See "Building an Up to Date Database from Scratch" in Alembic's cookbook.
    """
    Base.metadata.create_all(connection)
    connection.execute(insert(RevisionRow).values(id=1, number=0))
    _STEPS.create(connection)
    connection.execute(insert(_STEPS).values(version_num=HEAD))


def revision(session: Session) -> int:
    """Return the number of writes that this session's state of the database has seen."""
    return session.execute(select(RevisionRow.number)).scalar_one()


def _step(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(_STEPS.c.version_num)).scalar()


def _file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ValueError(f"{url} names no file; a registry is shared, so give sqlite:///path/to/registry.db")
    return Path(url.database)


def _identity(file: Path | None) -> tuple[int, int] | None:
    try:
        status = os.stat(file) if file else None
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status else None


def _engine(url: URL, file: Path | None, busy_timeout: float) -> Engine:
    if file is None:
        return create_engine(url)
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": busy_timeout})

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
