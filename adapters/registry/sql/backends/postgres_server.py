"""A registry's database on a PostgreSQL server, which several programs use at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from rootstock.adapters.errors import RegistryUnavailable, StoreFull
from rootstock.adapters.registry.sql.backends.change_feed import ChangeFeed
from rootstock.adapters.registry.sql.resolutions import Resolutions

DRIVER = "postgresql+psycopg"
# Seconds that a look-up of a reference may take. Requests wait for it, and so does the event loop.
LOOK_UP_SECONDS = 2.0
# Connections that stay open, and as many again at a peak.
_CONNECTIONS = 5
_LOOK_UPS_AT_ONCE = 4
# The number of the lock under which tables are created and upgraded.
_UPGRADING = int.from_bytes(b"rootstck", signed=True)
# An upgrade waits for one that another program is at.
_UPGRADE_WAIT_MS = 60_000
# libpq's own settings, each unless the URL has it. With them a server that has vanished without a word is given
# up after seconds, where the system's defaults would take a quarter of an hour.
_CONNECTING = {
    "connect_timeout": 3,
    "tcp_user_timeout": 3000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "application_name": "rootstock",
}
# By SQLSTATE, or by its class: what is wrong, for callers. The names of hosts and users stay out of it.
_REASONS = {
    "28": "the server refuses the user or the password",
    "3D": "the database does not exist",
    "42501": "the user lacks a right on the tables",
    "25006": "the server takes no writes; it is a standby",
    "53300": "the server has no connection left",
    "55P03": "a lock was not free in time",
    "57014": "a statement took too long",
    "57P": "the server starts, stops or recovers",
}
# The SQLSTATE of a disk that takes no more bytes.
_FULL = "53100"
T = TypeVar("T")


class PostgresServer:
    """A database on a PostgreSQL server.

    A failed connection marks it as away. Until a thread has reached it again, every use is refused at once, so
    that nothing waits for a server that is gone.
    """

    def __init__(self, url: URL, patience: float) -> None:
        """Connect to `url`. A statement, and a wait for a lock, may take `patience` seconds."""
        try:
            import psycopg  # noqa: F401 - only to learn that it is there
        except ImportError:
            raise RegistryUnavailable(
                "a registry on PostgreSQL needs the package psycopg, which is not installed; install the extra: "
                "pip install 'rootstock[postgres]'"
            ) from None
        self.place = url.set(query={}).render_as_string(hide_password=True)
        self._away: str | None = None
        self._feed: ChangeFeed | None = None
        self._engine = _engine(
            url,
            patience,
            pool_pre_ping=True,
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            pool_timeout=patience,
        )
        # The thread that follows changes must not wait for those who use the pool.
        self._unpooled = _engine(url, patience, poolclass=NullPool)
        self.reader: Engine = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        # At a higher level a writer would fail where it waited for another one's commit.
        self.writer: Engine = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._look_ups = ThreadPoolExecutor(_LOOK_UPS_AT_ONCE, "rootstock-look-up")

    def check_present(self) -> None:
        """Raise RegistryUnavailable if the server is known to be away."""
        away = self._away
        if away is not None:
            raise _unavailable(away)

    def check_same(self) -> None:
        """Do nothing: `Resolutions.refresh` notices that the database was put back."""

    def enter_upgrade(self, connection: Connection) -> None:
        """Take the lock under which tables are created and upgraded."""
        connection.execute(text(f"SET LOCAL lock_timeout = {_UPGRADE_WAIT_MS}"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADING})

    def announce(self, session: Session, revision: int, name: str | None) -> None:
        """Notify the other servers; PostgreSQL does it when the transaction commits."""
        # The number of the table tells the registries of one database apart.
        notify = "SELECT pg_notify('rootstock_' || CAST('revision' AS regclass)::oid, :payload)"
        session.execute(text(notify), {"payload": f"{revision} {name or ''}"})

    def guarding(self) -> AbstractContextManager[None]:
        """Do nothing: the locks on digests exclude the threads of this program too."""
        return nullcontext()

    def protect(self, session: Session, digest: str) -> None:
        """Take the digest's lock together with all who protect it."""
        # The transaction stays open while bytes are written, which the administrator may have limited.
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _key(digest)})

    def exclude(self, session: Session, digest: str) -> None:
        """Take the digest's lock alone."""
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _key(digest)})

    def explain(self, error: DBAPIError | PoolTimeout, opening: bool) -> RegistryUnavailable | StoreFull:
        """Return an error with the reason; while opening, with the address and PostgreSQL's own words."""
        if isinstance(error, PoolTimeout):
            return _unavailable("all connections are in use")
        if getattr(error.orig, "sqlstate", None) == _FULL:
            return StoreFull("the disk of the registry's database is full; free some space", place=self.place)
        reason = _reason(error)
        if opening:
            words = " ".join(str(error.orig).split())
            return RegistryUnavailable(
                f"{self.place} cannot be used: {words}; check that PostgreSQL runs there, and that "
                "ROOTSTOCK_REGISTRY_URL names its host, database, user and password"
            )
        if _lost(error):
            self._mark(reason)
        return _unavailable(reason)

    def in_time(self, call: Callable[[], T]) -> T:
        """Return what `call` returns; after LOOK_UP_SECONDS take the server for away."""
        future = self._look_ups.submit(call)
        try:
            return future.result(LOOK_UP_SECONDS)
        except TimeoutError:
            future.cancel()
            reason = f"the server did not answer within {LOOK_UP_SECONDS:g} s"
            self._mark(reason)
            raise _unavailable(reason) from None

    def follow(self, resolutions: Resolutions, changed: Callable[[], None]) -> bool:
        """Start the thread that learns of changes, and that finds out whether the server is there."""
        self._feed = ChangeFeed(self._connect, resolutions, changed, self._reached, self._failed)
        self._feed.start()
        return True

    def close(self) -> None:
        """Stop the thread, and close all connections."""
        if self._feed is not None:
            self._feed.stop()
        self._look_ups.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def _connect(self) -> Any:
        """Return a psycopg connection that no pool counts."""
        opened = self._unpooled.raw_connection()
        connection: Any = opened.driver_connection
        opened.detach()
        connection.autocommit = True
        return connection

    def _reached(self) -> None:
        self._away = None

    def _failed(self, error: Exception) -> None:
        self._mark(_reason(error) if isinstance(error, DBAPIError) else _reason_of(error))

    def _mark(self, reason: str) -> None:
        # Without the thread nobody would find out that the server is back.
        if self._feed is not None:
            self._away = reason


def _engine(url: URL, patience: float, **pool: Any) -> Engine:
    # The server drops the plan of a prepared statement if a newer program widens a column, and the statement
    # fails from then on. So none is prepared.
    options = {"prepare_threshold": None} | {k: v for k, v in _CONNECTING.items() if k not in url.query}
    # No value of a statement stands in an error: some are hashes of keys.
    engine = create_engine(url.set(drivername=DRIVER), connect_args=options, hide_parameters=True, **pool)
    event.listen(engine, "connect", _settings(patience))
    return engine


def _settings(patience: float) -> Callable[[Any, Any], None]:
    """Return a listener that prepares each new connection."""
    milliseconds = max(1, round(patience * 1000))

    def prepare(connection: Any, record: Any) -> None:
        before, connection.autocommit = connection.autocommit, True
        # A commit that is reported has to survive a crash, even if the administrator has turned that off.
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false), "
            "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' "
            "ELSE current_setting('synchronous_commit') END, false)",
            [str(milliseconds)] * 2,
        )
        connection.autocommit = before

    return prepare


def _key(digest: str) -> int:
    return int.from_bytes(hashlib.sha256(digest.encode()).digest()[:8], signed=True)


def _unavailable(reason: str) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"the registry's database cannot be used: {reason}; adapters in memory are still served; once it "
        "answers again, the server goes on without a restart"
    )


def _lost(error: DBAPIError) -> bool:
    """Return whether the connection is at fault, and not one statement."""
    state = getattr(error.orig, "sqlstate", None) or ""
    of_connection = isinstance(error, OperationalError | InterfaceError)
    return error.connection_invalidated or (
        of_connection and (not state or state[:2] in ("08", "28", "3D") or state[:3] == "57P")
    )


def _reason(error: DBAPIError) -> str:
    return _reason_of(error.orig)


def _reason_of(cause: BaseException | None) -> str:
    state = getattr(cause, "sqlstate", None) or ""
    for known in (state, state[:3], state[:2]):
        if known in _REASONS:
            return _REASONS[known]
    return f"error {state}" if state else "the connection failed or was lost"
