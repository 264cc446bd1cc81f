"""The routes that show, download and delete an adapter or one of its versions."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from rootstock.adapters.registry import VersionDetail
from rootstock.service.api.adapters.descriptions import Description, described_version, description_of
from rootstock.service.api.document.error_codes import ADAPTER, CHANGE, CHANGE_OF_VERSION, STORED, VERSION, raises
from rootstock.service.api.server import Server, server_of

router = APIRouter()


class Version(BaseModel):
    """A version of an adapter. `residency` is "slot", "memory" or "store"; `size` is in bytes."""

    version: int
    digest: str
    task: str
    status: str
    created_at: datetime
    size: int
    residency: str
    verification: dict[str, Any]


class VersionAnswer(Version):
    """A version with its description, which is null if the store cannot read the bundle."""

    description: Description | None


class AdapterAnswer(BaseModel):
    """An adapter with its versions, oldest first.

    `description` is that of the live version, else of the newest one. It is null without versions, and if the
    store cannot read the bundle. `shared` tells whether all tenants can use it.
    """

    name: str
    live: int | None
    task: str | None
    aliases: dict[str, int]
    shared: bool
    created_at: datetime
    versions: list[Version]
    description: Description | None


@router.get("/v1/adapters/{name}", openapi_extra=raises(*ADAPTER))
async def show_adapter(request: Request, name: str) -> AdapterAnswer:
    """Show an adapter, its aliases, its versions and its description."""
    return await asyncio.to_thread(_adapter, server_of(request), name)


@router.get("/v1/adapters/{name}/versions/{version}", openapi_extra=raises(*VERSION))
async def show_version(request: Request, name: str, version: int) -> VersionAnswer:
    """Show one version of an adapter and its description."""
    return await asyncio.to_thread(_described_version, server_of(request), name, version)


@router.get(
    "/v1/adapters/{name}/versions/{version}/bundle",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "The bundle as one zip."}},
    openapi_extra=raises(*VERSION, *STORED),
)
async def download(request: Request, name: str, version: int) -> Response:
    """Return the published bundle of a version, as a zip."""
    server = server_of(request)
    detail = await asyncio.to_thread(server.registry.version, name, version)
    data = await asyncio.to_thread(server.foundations.catalog_of(detail.foundation).read, detail.digest)
    headers = {
        "Content-Disposition": f'attachment; filename="{name}-{version}.zip"',
        "ETag": f'"{detail.digest}"',
    }
    return Response(data, media_type="application/zip", headers=headers)


@router.delete("/v1/adapters/{name}", status_code=204, openapi_extra=raises(*CHANGE))
async def delete_adapter(request: Request, name: str) -> Response:
    """Delete an adapter with all its versions, once no request uses them."""
    server = server_of(request)
    await server.publisher.delete(name, None, force=True)
    server.pins.moved()
    return Response(status_code=204)


@router.delete(
    "/v1/adapters/{name}/versions/{version}",
    status_code=204,
    openapi_extra=raises(*CHANGE_OF_VERSION, "version_in_use"),
)
async def delete_version(
    request: Request,
    name: str,
    version: int,
    force: Annotated[bool, Query(description="Delete it even if an alias points to it.")] = False,
) -> Response:
    """Delete a version, once no request uses it."""
    server = server_of(request)
    await server.publisher.delete(name, version, force=force)
    server.pins.moved()
    return Response(status_code=204)


def _adapter(server: Server, name: str) -> AdapterAnswer:
    adapter = server.registry.show(name)
    described = described_version(adapter)
    return AdapterAnswer(
        name=adapter.name,
        live=adapter.live,
        task=adapter.task,
        aliases=adapter.aliases,
        shared=adapter.shared,
        created_at=adapter.created_at,
        versions=[Version(**_fields(server, version)) for version in adapter.versions],
        description=None if described is None else description_of(server, described),
    )


def _described_version(server: Server, name: str, version: int) -> VersionAnswer:
    detail = server.registry.version(name, version)
    return VersionAnswer(**_fields(server, detail), description=description_of(server, detail))


def _fields(server: Server, detail: VersionDetail) -> dict[str, Any]:
    """Return the fields of a Version."""
    return {
        "version": detail.version,
        "digest": detail.digest,
        "task": detail.task,
        "status": detail.status,
        "created_at": detail.created_at,
        "size": detail.size,
        "residency": server.foundations.residency(detail.digest, detail.foundation),
        "verification": detail.verification,
    }
