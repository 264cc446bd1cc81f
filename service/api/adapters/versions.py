"""The routes that show, download and delete an adapter or one of its versions."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from rootstock.adapters.registry import VersionDetail
from rootstock.adapters.signing.signature import Signature
from rootstock.adapters.signing.signed_zip import signed_tail
from rootstock.service.api.adapters import rollback_rules, shadows
from rootstock.service.api.adapters.descriptions import Description, described_version, description_of
from rootstock.service.api.adapters.rollback_rules import RuleState
from rootstock.service.api.adapters.shadows import ShadowState
from rootstock.service.api.adapters.splits import written
from rootstock.service.api.document.error_codes import ADAPTER, CHANGE, CHANGE_OF_VERSION, STORED, VERSION, raises
from rootstock.service.api.server import Server, server_of

router = APIRouter()
_ZIP = "application/zip"
_PIECE = 2**18
Purge = Annotated[
    bool, Query(description="Remove it at once and for good, also if it is deleted and could still come back.")
]


class BundleResponse(StreamingResponse):
    """An answer with the first bytes of an open file, a piece at a time, and a tail; it closes the file.

    HEAD gets the headers alone.
    """

    def __init__(self, file: BinaryIO, headers: dict[str, str], keep: int, tail: bytes) -> None:
        size = str(keep + len(tail))
        super().__init__(self._pieces(), headers={**headers, "Content-Length": size}, media_type=_ZIP)
        self._file = file
        self._keep = keep
        self._tail = tail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and close the file also if the client leaves before the first piece."""
        try:
            if scope["method"] == "HEAD":
                await Response(headers=dict(self.headers))(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def _pieces(self) -> AsyncIterator[bytes]:
        await asyncio.to_thread(self._file.seek, 0)
        left = self._keep
        while left and (piece := await asyncio.to_thread(self._file.read, min(left, _PIECE))):
            left -= len(piece)
            yield piece
        if self._tail:
            yield self._tail


class Version(BaseModel):
    """A version of an adapter. `residency` is "slot", "memory" or "store"; `size` is in bytes.

    `published_by` is the principal that published it, as in the events; null if no request did, if nothing was
    recorded, and for an adapter of another tenant.
    """

    version: int
    digest: str
    task: str
    status: str
    created_at: datetime
    size: int
    residency: str
    verification: dict[str, Any]
    published_by: str | None


class VersionAnswer(Version):
    """A version with its description, which is null if the store cannot read the bundle."""

    description: Description | None


class AdapterAnswer(BaseModel):
    """An adapter with its versions, oldest first.

    `description` is that of the live version, else of the newest one. It is null without versions, and if the
    store cannot read the bundle. `shared` tells whether all tenants can use it. `splits` has the percents that
    other versions answer of an alias's requests, by alias and version. `shadow` and `rule` are null without one.
    """

    name: str
    live: int | None
    task: str | None
    aliases: dict[str, int]
    splits: dict[str, dict[str, float]]
    shared: bool
    created_at: datetime
    versions: list[Version]
    description: Description | None
    shadow: ShadowState | None
    rule: RuleState | None


@router.get("/v1/adapters/{name}", openapi_extra=raises(*ADAPTER))
async def show_adapter(request: Request, name: str) -> AdapterAnswer:
    """Show an adapter, its aliases, its versions and its description."""
    return await asyncio.to_thread(_adapter, server_of(request), name)


@router.get("/v1/adapters/{name}/versions/{version}", openapi_extra=raises(*VERSION))
async def show_version(request: Request, name: str, version: int) -> VersionAnswer:
    """Show one version of an adapter and its description."""
    return await asyncio.to_thread(_described_version, server_of(request), name, version)


@router.head("/v1/adapters/{name}/versions/{version}/bundle", include_in_schema=False)
@router.get(
    "/v1/adapters/{name}/versions/{version}/bundle",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}, "description": "The bundle as one zip."},
        304: {"description": "The caller has this bundle already: its ETag is in If-None-Match."},
    },
    openapi_extra=raises(*VERSION, *STORED),
)
async def download(request: Request, name: str, version: int) -> Response:
    """Return the published bundle of a version, as a zip, with the signature that it was published with."""
    server = server_of(request)
    detail = await asyncio.to_thread(server.registry.version, name, version)
    signature = _signature(detail)
    tag = _tag(detail.digest, signature)
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": tag})
    file = await asyncio.to_thread(server.foundations.directory.catalog_of(detail.foundation).open, detail.digest)
    headers = {"Content-Disposition": f'attachment; filename="{name}-{version}.zip"', "ETag": tag}
    try:
        keep, tail = await asyncio.to_thread(_rest, file, signature)
    except BaseException:
        file.close()
        raise
    return BundleResponse(file, headers, keep, tail)


@router.delete("/v1/adapters/{name}", status_code=204, openapi_extra=raises(*CHANGE))
async def delete_adapter(request: Request, name: str, purge: Purge = False) -> Response:
    """Delete an adapter with all its versions, once no request uses them."""
    server = server_of(request)
    await server.deletions.delete(name, None, force=True, purge=purge)
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
    force: Annotated[bool, Query(description="Delete it even if an alias, a split or a shadow uses it.")] = False,
    purge: Purge = False,
) -> Response:
    """Delete a version, once no request uses it."""
    server = server_of(request)
    await server.deletions.delete(name, version, force=force, purge=purge)
    server.pins.moved()
    return Response(status_code=204)


def _tag(digest: str, signature: Signature | None) -> str:
    """Return the ETag of a download. A bundle never changes, and only a new signature changes its zip."""
    if signature is None:
        return f'"{digest}"'
    return f'"{digest}+{hashlib.sha256(signature.to_bytes()).hexdigest()[:16]}"'


def _rest(file: BinaryIO, signature: Signature | None) -> tuple[int, bytes]:
    """Return how many bytes of a stored bundle a download has, and what follows them."""
    if signature is None:
        return file.seek(0, os.SEEK_END), b""
    return signed_tail(file, signature)


def _adapter(server: Server, name: str) -> AdapterAnswer:
    adapter = server.registry.show(name)
    described = described_version(adapter)
    return AdapterAnswer(
        name=adapter.name,
        live=adapter.live,
        task=adapter.task,
        aliases=adapter.aliases,
        splits={alias: written(candidates) for alias, candidates in adapter.splits.items()},
        shared=adapter.shared,
        created_at=adapter.created_at,
        versions=[Version(**_fields(server, version)) for version in adapter.versions],
        description=None if described is None else description_of(server, described),
        shadow=shadows.state_of(adapter.shadow),
        rule=rollback_rules.state_of(adapter.rule),
    )


def _described_version(server: Server, name: str, version: int) -> VersionAnswer:
    detail = server.registry.version(name, version)
    return VersionAnswer(**_fields(server, detail), description=description_of(server, detail))


def _signature(detail: VersionDetail) -> Signature | None:
    """Return the signature of a version's bundle.

    It is None without one, and for a plain PEFT folder: its signature covers the upload, from which the server
    made the bundle.
    """
    stated = detail.verification.get("signature")
    if not isinstance(stated, Mapping):
        return None
    signature = Signature.from_json({key: value for key, value in stated.items() if key != "signer"})
    return signature if signature.statement.digest == detail.digest else None


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
        "published_by": detail.published_by,
    }
