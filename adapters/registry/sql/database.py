"""Opens, upgrades, reads and writes the registry's database."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, make_url, select, update
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from rootstock.adapters.errors import RegistryUnavailable, UnsafeRegistry
from rootstock.adapters.registry.sql.backends.backend import SqlBackend
from rootstock.adapters.registry.sql.resolutions import Resolutions
from rootstock.adapters.registry.sql.tables import Base, RevisionRow

# The newest step in migrations/versions. Only a start on an older database imports Alembic.
HEAD = "0005"

# Alembic's table, which holds the newest step that a database has seen.
_STEPS = Table(
    "alembic_version",
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)

# Alembic keeps the running steps in a module's globals, so only one thread may run steps.
_STEPPING = threading.Lock()
T = TypeVar("T")


class Database:
    """An upgraded database whose writes, from any thread or process, happen one after another."""

    def __init__(self, url: str, busy_timeout: float, upgrade: bool = True) -> None:
        """Open the database, creating or upgrading it as needed; without `upgrade`, change nothing.

        Without `upgrade`, a database of an older program can be read and not written.
        """
        self._closed = False
        self._turn = threading.Lock()
        self._patience = busy_timeout
        # The session of a block of `guarding`, for the thread that entered it.
        self._joined = threading.local()
        self._opening = True
        self._backend = _backend(url, busy_timeout, upgrade)
        self._engine = self._backend.reader
        try:
            with self._translated():
                self._old = not self._serves_now(upgrade)
        except BaseException:
            self._backend.close()
            raise
        self._backend.check_same()
        self._opening = False

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that sees one state of the database and changes nothing."""
        with self._translated(), Session(self._backend.reader) as session:
            yield session

    @contextmanager
    def writing(self, changes: str | None = None) -> Iterator[tuple[Session, int]]:
        """Yield a session and its new revision; all changes of the session are committed together, or none.

        `changes` is the one adapter that changes. In a block of `guarding`, its thread commits the whole block.
        """
        if self._old:
            raise UnsafeRegistry(
                "an older program wrote the registry, and this command leaves it so; start the server once",
                place=self._backend.place,
            )
        joined: Session | None = getattr(self._joined, "session", None)
        with self._translated(), self._in_turn():
            if joined is not None:
                yield from self._write(joined, changes)
                return
            with Session(self._backend.writer, expire_on_commit=False) as session:
                yield from self._write(session, changes)

    @contextmanager
    def noting(self) -> Iterator[Session]:
        """Yield a session that writes what no look-up reads, so that nobody has to hear of it.

        All of it is committed together, or none.
        """
        with self._translated(), self._in_turn(), Session(self._backend.writer) as session:
            yield session
            session.commit()

    def _write(self, session: Session, changes: str | None) -> Iterator[tuple[Session, int]]:
        session.execute(update(RevisionRow).values(number=RevisionRow.number + 1))
        number = revision(session)
        yield session, number
        self._backend.announce(session, number, changes)
        session.commit()

    @contextmanager
    def guarding(self) -> Iterator[Callable[[str], None]]:
        """Yield a function that guards the bytes of a digest from `removing`, until the block ends.

        The first write in the block, by the thread that entered it, ends the guard too, because it commits. If
        the guard is lost with the connection, that write fails.
        """
        with (
            self._translated(),
            self._backend.guarding(),
            Session(self._backend.writer, expire_on_commit=False) as session,
        ):
            one_at_a_time = threading.Lock()

            def protect(digest: str) -> None:
                with one_at_a_time, self._translated():
                    self._backend.protect(session, digest)

            self._joined.session = session
            try:
                yield protect
            finally:
                del self._joined.session

    @contextmanager
    def removing(self, digest: str) -> Iterator[Session]:
        """Yield a session while no program guards this digest, and none can begin to."""
        with self._translated(), self._backend.guarding(), Session(self._backend.writer) as session:
            self._backend.exclude(session, digest)
            yield session

    def in_time(self, call: Callable[[], T]) -> T:
        """Return what a look-up returns; raise RegistryUnavailable if it takes too long for those who wait."""
        with self._translated():
            return self._backend.in_time(call)

    def follow(self, resolutions: Resolutions, changed: Callable[[], None]) -> bool:
        """Keep resolutions in step with other programs; return False if the caller has to ask."""
        return self._backend.follow(resolutions, changed)

    def ping(self) -> None:
        """Read one row; raise RegistryUnavailable if that fails or another file has replaced the opened one."""
        self._backend.check_same()
        with self.reading() as session:
            revision(session)

    def close(self) -> None:
        """Close the database; every later call raises RegistryUnavailable."""
        self._closed = True
        self._backend.close()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        # Each earlier writer may wait for the database this long too. Without a timeout here, the waits would
        # add up until the server ran out of threads.
        if not self._turn.acquire(timeout=self._patience):
            raise RegistryUnavailable(
                f"the registry took longer than {self._patience:g} s for the changes ahead of this one; check "
                "that no other program locks it, and try again",
                place=self._backend.place,
            )
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise RegistryUnavailable("the registry was closed; open it again", place=self._backend.place)
        self._backend.check_present()
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout) as error:
            raise self._backend.explain(error, self._opening) from error

    def _serves_now(self, upgrade: bool) -> bool:
        """Return whether this program can write to the tables, after an upgrade if `upgrade`."""
        with self._backend.reader.connect() as connection:
            step = _step(connection)
        if _serves(step):
            return True
        if upgrade:
            self._upgrade()
            return True
        if step is None:
            raise RegistryUnavailable(
                "the database holds no registry; restore a backup", place=self._backend.place
            )
        if step > HEAD:
            raise self._newer(step)
        return False

    def _upgrade(self) -> None:
        with _STEPPING, self._backend.writer.begin() as connection:
            self._backend.enter_upgrade(connection)
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
        if _serves(step):
            return
        if step is not None and step not in known:
            raise self._newer(step)
        command.upgrade(config, "head")

    def _newer(self, step: str) -> UnsafeRegistry:
        return UnsafeRegistry(
            f"the registry has schema {step!r}, and this program knows schemas only up to {HEAD!r}; use the "
            "newer program that wrote it, or restore a backup",
            place=self._backend.place,
        )


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


def _serves(step: str | None) -> bool:
    """Return whether this program can use a database whose newest step is this one as it is.

    The first digit of a step counts generations. The steps of a generation only add, so a program may use a
    database that a newer program has upgraded, as long as both are of one generation (ADR 37).
    """
    return step is not None and len(step) == len(HEAD) and step[0] == HEAD[0] and step.isdigit() and step >= HEAD


def _step(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(_STEPS.c.version_num)).scalar()


def _backend(url: str, patience: float, upgrade: bool) -> SqlBackend:
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The text may hold a password, so no message repeats it.
        raise RegistryUnavailable(
            "the registry's URL cannot be read; give postgresql+psycopg://user:password@host/database"
        ) from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        from rootstock.adapters.registry.sql.backends.sqlite_file import SqliteFile

        return SqliteFile(parsed, patience, upgrade)
    if kind == "postgresql":
        from rootstock.adapters.registry.sql.backends.postgres_server import PostgresServer

        return PostgresServer(parsed, patience)
    raise RegistryUnavailable(
        f"a registry cannot be on {kind}; give postgresql+psycopg://user:password@host/database"
    )
