"""The console's page, its files and the cards that it shows, at / for a browser, at /console and under it."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from rootstock.service.api.adapters.cards import card_of
from rootstock.service.api.middleware.keys import ASSETS_PATH, CONSOLE_PATH
from rootstock.service.api.server import Server, server_of
from rootstock.service.console.card import card_html
from rootstock.service.console.files import PAGE, console_files, etag_of

router = APIRouter(include_in_schema=False)

_HEADERS = {
    # The page runs and loads this server's files alone. A card is the only HTML that a script may insert.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types card",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The browser keeps a file and asks with its ETag whether it has changed.
    "Cache-Control": "no-cache",
}


async def console_page(request: Request) -> Response:
    """Return the page. Its addresses are relative, because a proxy may add a prefix."""
    response = await console_file(request, PAGE)
    response.headers["Vary"] = "Accept"
    return response


@router.head(CONSOLE_PATH)
@router.get(CONSOLE_PATH)
async def console(request: Request) -> Response:
    """Return the page for any client."""
    return await console_page(request)


@router.get(f"{CONSOLE_PATH}/")
async def console_folder() -> Response:
    """Redirect to the page, from whose own address its relative addresses hold."""
    return RedirectResponse("../console")


@router.head(f"{ASSETS_PATH}{{path:path}}")
@router.get(f"{ASSETS_PATH}{{path:path}}")
async def console_file(request: Request, path: str) -> Response:
    """Return a file of the page, or 304 for the ETag that it has. Answer 404 for any other name."""
    file = console_files().get(path)
    if file is None:
        raise HTTPException(404)
    headers = _HEADERS | {"ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)


@router.get(f"{CONSOLE_PATH}/cards/{{name}}/{{version}}")
async def console_card(request: Request, name: str, version: int) -> Response:
    """Return the card of a version as HTML that is safe to insert in the page."""
    html = await asyncio.to_thread(_card, server_of(request), name, version)
    # A browser that opens this address itself gets a page that may do nothing.
    headers = _HEADERS | {
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "ETag": etag_of(html.encode()),
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(html, media_type="text/html", headers=headers)


def _card(server: Server, name: str, version: int) -> str:
    return card_html(card_of(server, server.registry.version(name, version)).decode("utf-8", "replace"))
