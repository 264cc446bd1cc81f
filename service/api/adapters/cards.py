"""The routes that return the model card of an adapter, or of one of its versions."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from rootstock.adapters.errors import NoCard
from rootstock.adapters.registry import VersionDetail
from rootstock.service.api.adapters.descriptions import described_version
from rootstock.service.api.document.error_codes import ADAPTER, STORED, VERSION, raises
from rootstock.service.api.server import Server, server_of

router = APIRouter()
_MARKDOWN = "text/markdown"
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {_MARKDOWN: {"schema": {"type": "string"}}}, "description": "The card in Markdown."},
    304: {"description": "The caller has this card already: its ETag is in If-None-Match."},
}


@router.get(
    "/v1/adapters/{name}/card",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=raises(*ADAPTER, *STORED, "no_card"),
)
async def show_card(request: Request, name: str) -> Response:
    """Return the model card of an adapter's live version, else of its newest one."""
    return await asyncio.to_thread(_live_card, request, name)


@router.get(
    "/v1/adapters/{name}/versions/{version}/card",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=raises(*VERSION, *STORED, "no_card"),
)
async def show_version_card(request: Request, name: str, version: int) -> Response:
    """Return the model card of a version."""
    return await asyncio.to_thread(_version_card, request, name, version)


def _live_card(request: Request, name: str) -> Response:
    server = server_of(request)
    detail = described_version(server.registry.show(name))
    if detail is None:
        raise NoCard(f"adapter {name!r} has no versions, and so no card; publish one", param="name")
    return _answer(request, server, detail)


def _version_card(request: Request, name: str, version: int) -> Response:
    server = server_of(request)
    return _answer(request, server, server.registry.version(name, version))


def _answer(request: Request, server: Server, detail: VersionDetail) -> Response:
    card = card_of(server, detail)
    # A version's card never changes, so the digest of the version stands for it.
    tag = f'"{detail.digest}"'
    known = request.headers.get("if-none-match", "")
    if tag in known:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(card, media_type=_MARKDOWN, headers={"ETag": tag, "X-Content-Type-Options": "nosniff"})


def card_of(server: Server, detail: VersionDetail) -> bytes:
    """Return the card of a version in Markdown. Raise NoCard if its bundle has none."""
    card = server.foundations.directory.catalog_of(detail.foundation).card(detail.digest)
    if card is None:
        raise NoCard(
            f"version {detail.version} of adapter {detail.name!r} has no card; publish it with a README.md",
            param="name",
        )
    return card
