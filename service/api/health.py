"""The routes /livez, /readyz, /health and /metrics, which need no key."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from rootstock.service.api.errors import error_response
from rootstock.service.api.server import server_of

router = APIRouter()


@router.head("/livez", include_in_schema=False)
@router.get("/livez")
async def livez(request: Request) -> Response:
    """Answer 200 while the process starts or serves. Answer 503 once only a restart helps."""
    if server_of(request).foundations.fallen:
        return error_response(
            503, "the engine has stopped after a fault; see the log and restart the server", "engine_ended"
        )
    return JSONResponse({"status": "alive"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
@router.get("/health", name="health")
async def readyz(request: Request) -> Response:
    """Answer 200 while requests are admitted, else 503. Other servers' clients ask under /health."""
    server = server_of(request)
    if not (server.ready and server.foundations.alive):
        return error_response(
            503, "the server is starting or stopping, or its engine has stopped; see /livez", "not_ready"
        )
    await asyncio.to_thread(server.registry.ping)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format."""
    server = server_of(request)
    page = server.metrics
    page.ready.set(server.ready and server.foundations.alive)
    page.rank()
    return Response(await asyncio.to_thread(page.render), media_type=page.content_type)
