"""The part of a registry that the delivery of events to webhooks needs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rootstock.adapters.registry.records import Event


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event among those of all tenants. `event` is as its tenant sees it, with the tenant's number as its id.

    `position` orders the events of all tenants in the order in which they were committed.
    """

    position: int
    tenant: str
    event: Event


class EventFeed(Protocol):
    """The events of all tenants, and for each webhook's address the last one that it has received.

    A holder takes an address for some seconds, so that of several servers on one registry one delivers at a time.
    """

    def begin(self, address: str) -> None:
        """Let an address that is new begin after the newest event; one that is known keeps its place."""

    def oldest_ahead(self, address: str) -> datetime | None:
        """Return the time of the first event that an address has not received; None if it has received all."""

    def take(self, address: str, holder: str, seconds: float) -> int | None:
        """Hold an address for some seconds from now, and return the position of the last event that it has.

        Return None, and hold nothing, if another holder's time has not passed.
        """

    def following(self, position: int, limit: int) -> list[FeedEvent]:
        """Return at most `limit` events after a position, oldest first."""

    def advance(self, address: str, holder: str, position: int, seconds: float) -> bool:
        """Record that an address has received the event at a position, and hold it for some seconds from now.

        Return False, and change nothing, if `holder` holds it no longer.
        """

    def release(self, address: str, holder: str) -> None:
        """Let others take an address at once, if `holder` holds it."""
