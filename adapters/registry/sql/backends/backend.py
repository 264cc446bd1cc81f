"""The interface of a database that can hold a registry: what differs between SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from rootstock.adapters.errors import RegistryUnavailable, StoreFull
from rootstock.adapters.registry.sql.resolutions import Resolutions

T = TypeVar("T")


class SqlBackend(Protocol):
    """A database that holds a registry. `place` is its address without a password, for who runs the server.

    A transaction of `reader` sees one state of the database. A transaction of `writer` sees, from its first write
    on, all that earlier writers have committed.
    """

    place: str
    reader: Engine
    writer: Engine

    def check_present(self) -> None:
        """Raise RegistryUnavailable at once if the database is known to be away."""

    def check_same(self) -> None:
        """Remember which database this is; raise RegistryUnavailable if it is another than at the first call."""

    def enter_upgrade(self, connection: Connection) -> None:
        """Wait until no other program creates or upgrades the tables; hold until the transaction ends."""

    def announce(self, session: Session, revision: int, name: str | None) -> None:
        """Tell other programs of a revision and the one adapter that it changed, once it is committed."""

    def guarding(self) -> AbstractContextManager[None]:
        """Exclude all others from guarding, in any thread and program, if `protect` and `exclude` do not."""

    def protect(self, session: Session, digest: str) -> None:
        """Keep every other program from `exclude` on this digest until the transaction ends."""

    def exclude(self, session: Session, digest: str) -> None:
        """Wait until no program protects this digest, and keep all from it until the transaction ends."""

    def explain(self, error: DBAPIError | PoolTimeout, opening: bool) -> RegistryUnavailable | StoreFull:
        """Return the error to raise for a failure of the database, while it is opened or later.

        It is StoreFull if the database's disk takes no more bytes.
        """

    def in_time(self, call: Callable[[], T]) -> T:
        """Return what a short look-up returns; raise RegistryUnavailable if that takes too long."""

    def follow(self, resolutions: Resolutions, changed: Callable[[], None]) -> bool:
        """Keep `resolutions` in step with other programs, and call `changed` after a change; False if it cannot.

        The one that cannot leaves it to the caller to ask for the revision from time to time.
        """

    def close(self) -> None:
        """Stop following, and close all connections."""
