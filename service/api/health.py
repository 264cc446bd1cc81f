"""/livez, /readyz and /metrics: open to everyone, answered from memory."""

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
    """Answer 200 while the process can serve or is about to. Answer 503 once only a restart helps."""
    if server_of(request).foundations.fallen:
        return error_response(
            503, "the engine has ended by a fault, which the log holds: restart", "engine_ended"
        )
    return JSONResponse({"status": "alive"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Answer 200 while requests are admitted, else 503."""
    server = server_of(request)
    if not (server.ready and server.foundations.alive):
        return error_response(503, "the server is starting, stopping or its engine has ended", "not_ready")
    await asyncio.to_thread(server.registry.ping)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus's text format."""
    server = server_of(request)
    shown = server.metrics
    shown.ready.set(server.ready and server.foundations.alive)
    shown.rank()
    return Response(await asyncio.to_thread(shown.render), media_type=shown.content_type)
