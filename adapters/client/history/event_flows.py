"""The events of an adapter, and two of its versions side by side, as flows of calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.exchange import ClientFlow, HttpCall, RetryPolicy
from rootstock.adapters.client.history.version_diff import VersionDiff
from rootstock.adapters.client.records import ServerRecord
from rootstock.adapters.client.routes import document_at, reader_of
from rootstock.adapters.reference import check_name

# The most events of one page.
_PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class EventEntry(ServerRecord):
    """A change to an adapter. `at` is ISO 8601 in UTC; `detail` depends on `what` (docs/http-api.md)."""

    id: int
    at: str
    what: str
    name: str
    version: int | None
    alias: str | None
    detail: Mapping[str, Any]
    who: str | None


@dataclass(frozen=True, kw_only=True)
class EventPage(ServerRecord):
    """A page of events, newest first; `next` is the `before` of the next page, or None."""

    events: tuple[EventEntry, ...]
    next: int | None

    @classmethod
    def _fields(cls, document: Mapping[str, Any]) -> dict[str, Any]:
        return {"events": tuple(map(EventEntry.read, document["events"])), "next": document["next"]}


def history(policy: RetryPolicy, name: str | None, limit: int) -> ClientFlow[list[EventEntry]]:
    """Get the newest events, at most `limit`, of one adapter or of all; newest first."""
    if limit < 1:
        raise Misused(f"limit is {limit}; give 1 or more")
    path = "/v1/events" if name is None else f"{_adapter(name)}/events"
    events: list[EventEntry] = []
    before: int | None = None
    while len(events) < limit:
        page = yield from policy.ask(_page(path, min(_PAGE, limit - len(events)), before))
        events.extend(page.events)
        if page.next is None or not page.events:
            break
        before = page.next
    return events[:limit]


def diff(policy: RetryPolicy, name: str, first: int, second: int) -> ClientFlow[VersionDiff]:
    """Get two versions of an adapter with their cards, and compare them."""
    documents, cards = [], []
    for version in (first, second):
        path = f"{_adapter(name)}/versions/{version:d}"
        document = yield from policy.ask(document_at(path))
        described = document.get("description")
        has_card = isinstance(described, Mapping) and bool(described.get("card"))
        card = (yield from policy.ask(HttpCall("GET", f"{path}/card", _text))) if has_card else ""
        documents.append(document)
        cards.append(card)
    return VersionDiff.of(name, (documents[0], documents[1]), (cards[0], cards[1]))


def _page(path: str, limit: int, before: int | None) -> HttpCall[EventPage]:
    params = {"limit": limit} if before is None else {"limit": limit, "before": before}
    return HttpCall("GET", path, reader_of(EventPage.read), {"params": params})


def _adapter(name: str) -> str:
    return f"/v1/adapters/{quote(check_name(name), safe='')}"


def _text(response: httpx.Response) -> str:
    return response.text
