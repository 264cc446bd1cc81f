"""The events of all tenants in their order, and the place of each webhook in it."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from rootstock.adapters.registry.records import Event, Viewer
from rootstock.adapters.registry.sql.database import Database
from rootstock.adapters.registry.sql.tables import EventRow, UtcTime, WebhookRow
from rootstock.adapters.registry.sql.visibility import named
from rootstock.adapters.registry.webhook_port import FeedEvent


class EventCursors:
    """An EventFeed in one database.

    Writers commit one after another, and a writer draws the ids of its events while no other can. So no event
    appears before a position that was read. The database's clock tells whether a holder's time has passed,
    because those of servers differ.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, address: str) -> None:
        """Let an address that is new begin after the newest event; one that is known keeps its place."""
        # Of two servers that begin at once, the second one finds the row of the first.
        with suppress(IntegrityError), self._database.noting() as session:
            if session.get(WebhookRow, address) is None:
                newest = session.scalar(select(func.max(EventRow.id))) or 0
                session.add(WebhookRow(address=address, event=newest, holder=None, held_until=None))

    def oldest_ahead(self, address: str) -> datetime | None:
        """Return the time of the first event that an address has not received; None if it has received all."""
        place = select(WebhookRow.event).where(WebhookRow.address == address).scalar_subquery()
        first = select(EventRow.at).where(EventRow.id > place).order_by(EventRow.id).limit(1)
        with self._database.reading() as session:
            return session.scalar(first)

    def take(self, address: str, holder: str, seconds: float) -> int | None:
        """Hold an address for some seconds from now, and return the position of the last event that it has.

        Return None, and hold nothing, if another holder's time has not passed.
        """
        with self._database.noting() as session:
            now = _now(session)
            free = or_(WebhookRow.holder.is_(None), WebhookRow.holder == holder, WebhookRow.held_until < now)
            return session.scalar(
                update(WebhookRow)
                .where(WebhookRow.address == address, free)
                .values(holder=holder, held_until=now + timedelta(seconds=seconds))
                .returning(WebhookRow.event)
            )

    def following(self, position: int, limit: int) -> list[FeedEvent]:
        """Return at most `limit` events after a position, oldest first."""
        rows = select(EventRow).where(EventRow.id > position).order_by(EventRow.id).limit(limit)
        with self._database.reading() as session:
            return [_feed_event(row) for row in session.scalars(rows)]

    def advance(self, address: str, holder: str, position: int, seconds: float) -> bool:
        """Record that an address has received the event at a position, and hold it for some seconds from now.

        Return False, and change nothing, if `holder` holds it no longer.
        """
        with self._database.noting() as session:
            moved = session.scalar(
                update(WebhookRow)
                .where(WebhookRow.address == address, WebhookRow.holder == holder)
                .values(event=position, held_until=_now(session) + timedelta(seconds=seconds))
                .returning(WebhookRow.event)
            )
        return moved is not None

    def release(self, address: str, holder: str) -> None:
        """Let others take an address at once, if `holder` holds it."""
        held = (WebhookRow.address == address, WebhookRow.holder == holder)
        with self._database.noting() as session:
            session.execute(update(WebhookRow).where(*held).values(holder=None, held_until=None))


def _now(session: Session) -> datetime:
    return session.execute(select(func.now(type_=UtcTime()))).scalar_one()


def _feed_event(row: EventRow) -> FeedEvent:
    number = row.id if row.number is None else row.number
    name = named(row.name, Viewer(row.tenant))
    event = Event(number, row.at, row.what, name, row.version, row.alias, row.detail, row.who)
    return FeedEvent(row.id, row.tenant, event)
