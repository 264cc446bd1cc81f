"""The routes that list the registry's events: publications, moves of aliases, rollbacks and deletions."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from rootstock.service.api.document.error_codes import ADAPTER, raises
from rootstock.service.api.server import Server, server_of

router = APIRouter()
Limit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[
    int | None, Query(ge=1, le=2**63 - 1, description="Id of the event that the page comes before, in time.")
]


class AdapterEvent(BaseModel):
    """A change to an adapter.

    `what` is "published", "alias_set", "rolled_back", "split_set", "version_deleted" or another word for a
    change. `detail` depends on it: the digest of a published or deleted version, the states `before` and `after`
    of what changed, the `aliases` that went with a version, or the deleted `versions`, and whether they are
    `restorable`. `who` is the tenant of the request that made the change, with a slash and the id of its key if
    it had one, "rule" for a rollback rule, or "retention" for what follows from the settings. It is null if a
    program made the change in the home.
    """

    id: int
    at: datetime
    what: str
    name: str
    version: int | None
    alias: str | None
    detail: dict[str, Any]
    who: str | None


class Events(BaseModel):
    """A page of events, newest first; `next` is the `before` of the next page, or null."""

    events: list[AdapterEvent]
    next: int | None


@router.get("/v1/adapters/{name}/events", openapi_extra=raises(*ADAPTER))
async def adapter_events(request: Request, name: str, limit: Limit = 100, before: Before = None) -> Events:
    """List the events of one adapter, newest first. A deleted adapter keeps its events."""
    return await asyncio.to_thread(_of_adapter, server_of(request), name, limit, before)


@router.get("/v1/events", openapi_extra=raises("registry_unavailable"))
async def events(request: Request, limit: Limit = 100, before: Before = None) -> Events:
    """List the events of all adapters, newest first."""
    return await asyncio.to_thread(_page, server_of(request), None, limit, before)


def _of_adapter(server: Server, name: str, limit: int, before: int | None) -> Events:
    page = _page(server, name, limit, before)
    if not page.events and not server.registry.events(name, 1):
        # Each adapter has an event, its publication. So this name is unknown, and the error names similar ones.
        server.registry.show(name)
    return page


def _page(server: Server, name: str | None, limit: int, before: int | None) -> Events:
    found = server.registry.events(name, limit + 1, before)
    page = [
        AdapterEvent(
            id=event.id,
            at=event.at,
            what=event.what,
            name=event.name,
            version=event.version,
            alias=event.alias,
            detail=event.detail,
            who=event.who,
        )
        for event in found[:limit]
    ]
    return Events(events=page, next=page[-1].id if len(found) > limit else None)
