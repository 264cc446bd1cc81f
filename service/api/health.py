"""The routes /livez, /readyz, /health and /metrics, which need no key."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from rootstock.service.api.document.error_codes import raises
from rootstock.service.api.errors import error_response
from rootstock.service.api.server import is_operator, principal_of, server_of

router = APIRouter()
_READINESS = raises("not_ready", "registry_unavailable")


class ServerState(BaseModel):
    """The state of a server: "alive" or "ready"."""

    status: Literal["alive", "ready"]


@router.head("/livez", include_in_schema=False)
@router.get("/livez", response_model=ServerState, openapi_extra=raises("engine_ended"))
async def livez(request: Request) -> JSONResponse:
    """Answer 200 while the process starts or serves. Answer 503 once only a restart helps."""
    if server_of(request).foundations.fallen:
        return error_response(
            503, "the engine has stopped after a fault; see the log and restart the server", "engine_ended"
        )
    return JSONResponse({"status": "alive"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=ServerState, openapi_extra=_READINESS)
@router.get("/health", name="health", response_model=ServerState, openapi_extra=_READINESS)
async def readyz(request: Request, exclude: Literal["registry"] | None = None) -> JSONResponse:
    """Answer 200 while requests are admitted, else 503. Other servers' clients ask under /health.

    With `exclude=registry` a registry that cannot be reached is no reason for a 503: adapters in memory are
    served.
    """
    server = server_of(request)
    if not (server.ready and server.foundations.alive):
        return error_response(
            503, "the server is starting or stopping, or its engine has stopped; see /livez", "not_ready"
        )
    if exclude is None:
        await asyncio.to_thread(server.registry.ping)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format.

    On a server with keys, only the operator's admin key gets the series of adapters and those that count them.
    """
    server = server_of(request)
    text = await server.metrics_page(is_operator(principal_of(request)))
    return Response(text, media_type=server.metrics.content_type)
