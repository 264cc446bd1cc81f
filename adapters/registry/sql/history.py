"""Adds events to the record of changes."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from rootstock.adapters.reference import split_stored
from rootstock.adapters.registry.records import Viewer
from rootstock.adapters.registry.sql.tables import EventRow


class History:
    """The record of one transaction's changes: it numbers the events of each tenant, and states who made them."""

    def __init__(self, session: Session, viewer: Viewer | None, now: datetime) -> None:
        self._session = session
        self._who = None if viewer is None else viewer.who
        self._now = now
        self._last: dict[str, int] = {}

    @property
    def who(self) -> str | None:
        """Return the principal that makes the changes; None if no request does."""
        return self._who

    def note(
        self, what: str, stored: str, version: int | None = None, alias: str | None = None, **detail: Any
    ) -> None:
        """Add an event of the adapter `stored`."""
        self._session.add(EventRow(**self.row(what, stored, version, alias, detail)))

    def note_once(self, what: str, stored: str, version: int, alias: str, **detail: Any) -> None:
        """Add an event of a version, unless it is the newest event of that version already."""
        of_version = (EventRow.name == stored, EventRow.version == version)
        newest = select(EventRow.what).where(*of_version).order_by(EventRow.id.desc()).limit(1)
        if self._session.scalar(newest) != what:
            self.note(what, stored, version, alias, **detail)

    def row(
        self, what: str, stored: str, version: int | None, alias: str | None, detail: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the columns of the next event of a tenant.

        An event that states `before` states `after` too: the version, unless the caller gives another state.
        """
        if "before" in detail:
            detail = {"before": detail["before"], "after": version, **detail}
        tenant = split_stored(stored)[0]
        last = self._last.get(tenant)
        number = self._last[tenant] = (self._newest(tenant) if last is None else last) + 1
        return {
            "at": self._now,
            "what": what,
            "name": stored,
            "version": version,
            "alias": alias,
            "detail": detail,
            "tenant": tenant,
            "number": number,
            "who": self._who,
        }

    def _newest(self, tenant: str) -> int:
        number = func.coalesce(EventRow.number, EventRow.id)
        newest = select(number).where(EventRow.tenant == tenant).order_by(EventRow.id.desc()).limit(1)
        return self._session.scalar(newest) or 0
