"""/ and /docs: what a browser is shown, all of it from installed packages, so that it works offline."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response
from jinja2 import Environment, StrictUndefined
from pydantic import BaseModel

from rootstock.service.api.adapters import ListedAdapter, page_of
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.catalog import FOUNDATION

router = APIRouter()

_LINKS = {
    "API reference": "/docs",
    "OpenAPI": "/openapi.json",
    "models": "/v1/models",
    "adapters": "/v1/adapters",
    "limits": "/v1/limits",
    "metrics": "/metrics",
    "readiness": "/readyz",
}
_SHOWN = 50
# Swagger UI comes with fastapi-offline: BentoML's own copy is private to it.
_ASSETS = {
    "swagger-ui.js": "swagger-ui-bundle.js",
    "swagger-ui.css": "swagger-ui.css",
    "favicon.png": "favicon.png",
}
_TEXT = "Where is my parcel? Ada Lovelace sent it from London."
# A request's inputs, and parameters where it needs some, for each task that an adapter can have.
EXAMPLES: dict[str, dict[str, Any]] = {
    "text-classification": {"inputs": _TEXT},
    "token-classification": {"inputs": _TEXT, "parameters": {"aggregation_strategy": "simple"}},
    "feature-extraction": {"inputs": _TEXT},
    "question-answering": {"inputs": {"question": "Who sent it?", "context": _TEXT}},
    "text-ranking": {"inputs": {"text": "Who sent it?", "text_pair": _TEXT}},
    "zero-shot-classification": {"inputs": _TEXT, "parameters": {"candidate_labels": ["delivery", "music"]}},
}


class Index(BaseModel):
    """A description of this server: `links` lead on, by what they lead to, and `example` is a command to copy.

    `adapters` are the first by name; `more` says that /v1/adapters lists others.
    """

    name: str
    version: str
    foundations: list[str]
    links: dict[str, str]
    adapters: list[ListedAdapter]
    more: bool
    example: str


@router.head("/", include_in_schema=False)
@router.get("/", response_model=Index, responses={200: {"content": {"text/html": {}}}})
async def index(request: Request) -> Response:
    """Say what this server is: a page to a browser, JSON to a program."""
    server = server_of(request)
    page = await asyncio.to_thread(page_of, server, _SHOWN, None)
    shown = Index(
        name="rootstock",
        version=version("rootstock"),
        foundations=[host.spec.name for host in server.foundations],
        links=_LINKS,
        adapters=page.adapters,
        more=page.next is not None,
        example=_example(str(request.base_url), page.adapters),
    )
    headers = {"Vary": "Accept"}
    if "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_template().render(index=shown, summary=request.app.summary), headers=headers)
    return Response(shown.model_dump_json(), media_type="application/json", headers=headers)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Show the routes and let a reader try them. Addresses are relative, for a proxy may add a prefix."""
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{request.app.title}: API reference",
        swagger_js_url="docs/swagger-ui.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
        # Its own default would send the address of the schema to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None},
    )


@router.get("/docs/{asset}", include_in_schema=False)
async def docs_asset(asset: str) -> FileResponse:
    """Return a file that /docs needs."""
    if asset not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_static() / _ASSETS[asset])


def _example(base: str, adapters: list[ListedAdapter]) -> str:
    """Return a request under an adapter that is in memory, else under any, else under the foundation."""
    usable = [adapter for adapter in adapters if adapter.live is not None and adapter.task in EXAMPLES]
    usable.sort(key=lambda adapter: adapter.residency == "store")
    model, task = (usable[0].name, usable[0].task) if usable else (FOUNDATION, "feature-extraction")
    body = json.dumps({"model": model, **EXAMPLES[str(task)]})
    return f"curl {base}v1/predict -H 'Content-Type: application/json' -d '{body}'"


@cache
def _static() -> Path:
    return Path(str(files("fastapi_offline"))) / "static"


@cache
def _template() -> Any:
    source = (Path(__file__).parent / "templates" / "index.html.jinja").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
