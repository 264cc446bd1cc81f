"""The routes that move an alias: to a version, or `live` back to the one before."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from rootstock.adapters.registry import AliasPointer
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import CHANGE, CHANGE_OF_VERSION, raises
from rootstock.service.api.server import check_activation, server_of
from rootstock.service.api.strict import Strict

router = APIRouter(route_class=BodyRoute)


class AliasBody(Strict):
    """The body that sets an alias: the version to point to."""

    version: Annotated[int, Field(ge=1, strict=True)]


class Alias(BaseModel):
    """An alias and the version that it points to."""

    name: str
    alias: str
    version: int
    digest: str


@router.put(
    "/v1/adapters/{name}/aliases/{alias}",
    openapi_extra=raises(*CHANGE_OF_VERSION, "invalid_name", "approval_needed"),
)
async def set_alias(request: Request, name: str, alias: str, body: AliasBody) -> Alias:
    """Point an alias at a version; requests that are admitted from now on use that version."""
    server = server_of(request)
    await check_activation(request, name, alias, body.version)
    pointer = await asyncio.to_thread(server.registry.set_alias, name, alias, body.version)
    server.pins.moved(f"{pointer.name}@{pointer.version}")
    return _alias(pointer)


@router.post("/v1/adapters/{name}/rollback", openapi_extra=raises(*CHANGE, "no_previous_version"))
async def rollback(request: Request, name: str) -> Alias:
    """Move `live` back to the version that it pointed to before."""
    server = server_of(request)
    pointer = await asyncio.to_thread(server.registry.rollback, name)
    server.pins.moved(f"{pointer.name}@{pointer.version}")
    return _alias(pointer)


def _alias(pointer: AliasPointer) -> Alias:
    return Alias(name=pointer.name, alias=pointer.alias, version=pointer.version, digest=pointer.digest)
