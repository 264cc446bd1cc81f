"""The index /, and the pages /docs and /redoc. Their files come from installed packages, so they work offline."""

from __future__ import annotations

import asyncio
import json
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel

from rootstock.adapters.spec import TEXT2TEXT_GENERATION, TEXT_GENERATION, ZERO_SHOT_IMAGES
from rootstock.adapters.tasks import TASKS
from rootstock.service.api.adapters.listing import ListedAdapter, page_of
from rootstock.service.api.console import console_page
from rootstock.service.api.document.error_codes import raises
from rootstock.service.api.middleware.keys import is_console
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.catalog import FOUNDATION

router = APIRouter()

_LINKS = {
    "console": "/console",
    "API reference": "/docs",
    "OpenAPI": "/openapi.json",
    "models": "/v1/models",
    "adapters": "/v1/adapters",
    "limits": "/v1/limits",
    "metrics": "/metrics",
    "readiness": "/readyz",
}
_MAX_ADAPTERS = 50
# Swagger UI and ReDoc come from fastapi-offline, because BentoML's copy of the first is a private part of it.
_ASSETS = {
    "swagger-ui.js": "swagger-ui-bundle.js",
    "swagger-ui.css": "swagger-ui.css",
    "favicon.png": "favicon.png",
    "redoc.js": "redoc.standalone.js",
}
# ReDoc shows a picture from its maker's host. The first part of this policy keeps both pages from asking any
# other host. The last part keeps other pages from framing them.
_ONLY_HERE = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
# The routes of the tasks that /v1/predict does not serve.
_ROUTES = {TEXT_GENERATION: "v1/chat/completions", TEXT2TEXT_GENERATION: "v1/completions"}
_TEXT = "Where is my parcel? Ada Lovelace sent it from London."
# The inputs of an example request, and its parameters if any, for each task that an adapter can have.
EXAMPLES: dict[str, dict[str, Any]] = {
    "text-classification": {"inputs": _TEXT},
    "token-classification": {"inputs": _TEXT, "parameters": {"aggregation_strategy": "simple"}},
    "feature-extraction": {"inputs": _TEXT},
    "question-answering": {"inputs": {"question": "Who sent it?", "context": _TEXT}},
    "text-ranking": {"inputs": {"text": "Who sent it?", "text_pair": _TEXT}},
    "zero-shot-classification": {"inputs": _TEXT, "parameters": {"candidate_labels": ["delivery", "music"]}},
    TEXT_GENERATION: {"messages": [{"role": "user", "content": "Where is my parcel?"}]},
    TEXT2TEXT_GENERATION: {"prompt": f"summarize: {_TEXT}"},
}
# The file of an example request, for each task whose inputs are files.
FILES = {
    spec.name: f"{spec.modality}=@{'photo.jpg' if spec.modality == 'image' else 'recording.wav'}"
    for spec in TASKS
    if spec.modality != "text"
}
# The parameters beside the file, for a task that needs some.
FILE_PARAMETERS = {ZERO_SHOT_IMAGES: {"candidate_labels": ["a cat", "a red car"]}}


class Index(BaseModel):
    """A description of this server. `links` maps titles to paths; `example` is a command to copy.

    `adapters` lists the first 50 by name; `more` is true if /v1/adapters lists others.
    """

    name: str
    version: str
    foundations: list[str]
    links: dict[str, str]
    adapters: list[ListedAdapter]
    more: bool
    example: str


@router.head("/", include_in_schema=False)
@router.get(
    "/",
    response_model=Index,
    responses={200: {"content": {"text/html": {}}}},
    openapi_extra=raises("registry_unavailable"),
)
async def index(request: Request) -> Response:
    """Describe this server in JSON to a program; return the console to a browser."""
    if is_console(request.scope):
        return await console_page(request)
    server = server_of(request)
    page = await asyncio.to_thread(page_of, server, _MAX_ADAPTERS, None)
    description = Index(
        name="rootstock",
        version=version("rootstock"),
        foundations=[host.spec.name for host in server.foundations],
        links=_LINKS,
        adapters=page.adapters,
        more=page.next is not None,
        example=_example(
            str(request.base_url), page.adapters, server_of(request).foundations.first.spec.own_tasks[0]
        ),
    )
    return Response(description.model_dump_json(), media_type="application/json", headers={"Vary": "Accept"})


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Return the page of Swagger UI. Its addresses are relative, because a proxy may add a prefix."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{request.app.title}: API reference",
        swagger_js_url="docs/swagger-ui.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon.png",
        # By default Swagger UI sends the address of the schema to a validator on the internet.
        swagger_ui_parameters={"validatorUrl": None},
    )
    page.headers.update(_ONLY_HERE)
    return page


@router.get("/redoc", include_in_schema=False)
async def redoc(request: Request) -> HTMLResponse:
    """Return the page of ReDoc, the reference as one text. Its addresses are relative, as in /docs."""
    page = get_redoc_html(
        openapi_url="openapi.json",
        title=f"{request.app.title}: API reference",
        redoc_js_url="docs/redoc.js",
        redoc_favicon_url="docs/favicon.png",
        with_google_fonts=False,
    )
    page.headers.update(_ONLY_HERE)
    return page


@router.get("/docs/{asset}", include_in_schema=False)
async def docs_asset(asset: str) -> FileResponse:
    """Return a file of the pages /docs and /redoc. Answer 404 for any other name."""
    if asset not in _ASSETS:
        raise HTTPException(404)
    return FileResponse(_static() / _ASSETS[asset], headers={"Cache-Control": "no-cache"})


def _example(base: str, adapters: list[ListedAdapter], own_task: str) -> str:
    """Return an example command: for an adapter in memory, else for any, else for the foundation's own task."""
    known = EXAMPLES.keys() | FILES.keys()
    usable = [adapter for adapter in adapters if adapter.live is not None and adapter.task in known]
    usable.sort(key=lambda adapter: adapter.residency == "store")
    model, task = (usable[0].name, str(usable[0].task)) if usable else (FOUNDATION, own_task)
    route = _ROUTES.get(task, "v1/predict")
    if task in FILES:
        parameters = json.dumps(FILE_PARAMETERS.get(task, {}))
        needed = f" -F 'parameters={parameters}'" if task in FILE_PARAMETERS else ""
        return f"curl {base}{route} -F model={model} -F {FILES[task]}{needed}"
    body = json.dumps({"model": model, **EXAMPLES[task]})
    return f"curl {base}{route} -H 'Content-Type: application/json' -d '{body}'"


@cache
def _static() -> Path:
    return Path(str(files("fastapi_offline"))) / "static"
