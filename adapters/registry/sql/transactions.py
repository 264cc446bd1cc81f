"""The transactions in which a registry's tables change."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from rootstock.adapters.reference import split_path
from rootstock.adapters.registry.records import Viewer
from rootstock.adapters.registry.sql.database import Database
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.resolutions import Resolutions
from rootstock.adapters.registry.sql.tables import AdapterRow
from rootstock.adapters.registry.sql.visibility import candidates, find_own


class RegistryTransactions:
    """A database and the resolutions in memory, which each write renews."""

    def __init__(self, database: Database, resolutions: Resolutions) -> None:
        self._database = database
        self._resolutions = resolutions

    @contextmanager
    def _writing(self, stored: str | None, viewer: Viewer | None) -> Iterator[tuple[Session, History]]:
        """Yield a session that writes; `stored` is the one adapter that it changes, or None for several."""
        with self._database.writing(stored) as (session, new_revision):
            yield session, History(session, viewer, datetime.now(UTC))
        self._resolutions.renew(new_revision, stored)

    @contextmanager
    def _changing(self, path: str, viewer: Viewer | None) -> Iterator[tuple[Session, History, AdapterRow]]:
        """Yield a session that changes an adapter of the viewer, and the adapter."""
        with self._writing(self._own_name(path, viewer), viewer) as (session, history):
            yield session, history, find_own(session, path, viewer)

    @staticmethod
    def _own_name(path: str, viewer: Viewer | None) -> str | None:
        """Return the stored name of the one adapter of the viewer that a path may mean."""
        parts = split_path(path)
        # Of the names that a path may mean, the first one alone can be the viewer's.
        return None if parts is None else candidates(*parts, viewer)[0][0]
