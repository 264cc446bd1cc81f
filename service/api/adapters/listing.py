"""The route GET /v1/adapters: the adapters by name, a page at a time."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from rootstock.adapters.errors import AdapterError
from rootstock.adapters.registry import AdapterSummary
from rootstock.service.api.document.error_codes import raises
from rootstock.service.api.server import Server, server_of

router = APIRouter()


class ListedAdapter(BaseModel):
    """An adapter in a list. `residency` says where its live version is: "slot", "memory" or "store".

    One that another tenant shares is named `tenant/name`. `shared` tells whether all tenants can use it.
    """

    name: str
    live: int | None
    versions: list[int]
    task: str | None
    aliases: dict[str, int]
    residency: str | None
    shared: bool


class AdapterList(BaseModel):
    """A page of adapters in the order of their names; `next` is the `after` of the next page, or null."""

    adapters: list[ListedAdapter]
    next: str | None


@router.get("/v1/adapters", openapi_extra=raises("invalid_name", "registry_unavailable"))
async def list_adapters(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="Name after which the page begins.")] = None,
    search: Annotated[str, Query(description="Text that the names contain.")] = "",
) -> AdapterList:
    """List the tenant's adapters and those that others share, by name, a page at a time."""
    return await asyncio.to_thread(page_of, server_of(request), limit, after, search)


def page_of(server: Server, limit: int, after: str | None, search: str = "") -> AdapterList:
    """Return a page of at most `limit` adapters whose names contain `search`, in the order of their names."""
    page = server.registry.list(limit, after, search)
    listed = [
        ListedAdapter(
            name=a.name,
            live=a.live,
            versions=a.versions,
            task=a.task,
            aliases=a.aliases,
            residency=_residency(server, a),
            shared=a.shared,
        )
        for a in page.adapters
    ]
    return AdapterList(adapters=listed, next=page.next)


def _residency(server: Server, adapter: AdapterSummary) -> str | None:
    if adapter.live is None:
        return None
    try:
        return server.foundations.residency(server.registry.resolve(adapter.name).digest, adapter.foundation)
    except AdapterError:  # The adapter was deleted after the page was read.
        return None
