"""The routes that list deleted versions, and bring them back."""

from __future__ import annotations

import asyncio
from datetime import datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel

from rootstock.adapters.registry import Undeleted
from rootstock.service.api.document.error_codes import CHANGE_OF_VERSION, VERSION, raises
from rootstock.service.api.server import Server, server_of

router = APIRouter()


class DeletedVersionAnswer(BaseModel):
    """A deleted version. It can come back until `purged_at`; `aliases` would come back with it.

    `size` is in bytes.
    """

    version: int
    digest: str
    task: str
    size: int
    created_at: datetime
    deleted_at: datetime
    purged_at: datetime
    aliases: list[str]


class DeletedVersions(BaseModel):
    """The deleted versions of an adapter, oldest first."""

    name: str
    versions: list[DeletedVersionAnswer]


class UndeletedVersions(BaseModel):
    """The versions that came back, and the aliases that came back with them."""

    name: str
    versions: list[int]
    aliases: dict[str, int]


@router.get("/v1/adapters/{name}/deleted", openapi_extra=raises(*VERSION, "not_owner"))
async def deleted_versions(request: Request, name: str) -> DeletedVersions:
    """List the deleted versions of an adapter that can come back; the adapter itself may be deleted."""
    return await asyncio.to_thread(_deleted, server_of(request), name)


@router.post(
    "/v1/adapters/{name}/versions/{version}/undelete",
    openapi_extra=raises(*CHANGE_OF_VERSION, "already_published"),
)
async def undelete_version(request: Request, name: str, version: int) -> UndeletedVersions:
    """Bring a deleted version back, with those of its aliases that point to nothing now."""
    return await _undelete(server_of(request), name, version)


@router.post("/v1/adapters/{name}/undelete", openapi_extra=raises(*CHANGE_OF_VERSION, "already_published"))
async def undelete_adapter(request: Request, name: str) -> UndeletedVersions:
    """Bring a deleted adapter back with the versions and aliases that it had."""
    return await _undelete(server_of(request), name, None)


def _deleted(server: Server, name: str) -> DeletedVersions:
    gone = server.deletions.deleted(name)
    return DeletedVersions(
        name=gone[0].name if gone else name,
        versions=[
            DeletedVersionAnswer(
                version=one.version,
                digest=one.digest,
                task=one.task,
                size=one.size,
                created_at=one.created_at,
                deleted_at=one.deleted_at,
                purged_at=one.deleted_at + server.deletions.grace,
                aliases=one.aliases,
            )
            for one in gone
        ],
    )


async def _undelete(server: Server, name: str, version: int | None) -> UndeletedVersions:
    back: Undeleted = await server.deletions.undelete(name, version)
    for number in sorted(set(back.aliases.values())):
        server.pins.moved(f"{back.name}@{number}")
    return UndeletedVersions(name=back.name, versions=back.versions, aliases=back.aliases)
