"""The route that shares an adapter with all tenants, or takes it back."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictBool

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import CHANGE, raises
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict

router = APIRouter(route_class=BodyRoute)


class SharingBody(Strict):
    """The body that shares an adapter with all tenants, or with `false` takes it back."""

    shared: Annotated[StrictBool, Field(examples=[True])]


class SharedAdapter(BaseModel):
    """An adapter, and whether all tenants can use it."""

    name: str
    shared: bool


@router.put("/v1/adapters/{name}/sharing", openapi_extra=raises(*CHANGE))
async def share_adapter(request: Request, name: str, body: SharingBody) -> SharedAdapter:
    """Let all tenants use an adapter, or its own tenant alone; admitted requests are answered in any case."""
    sharing = await asyncio.to_thread(server_of(request).registry.share, name, body.shared)
    return SharedAdapter(name=sharing.name, shared=sharing.shared)
