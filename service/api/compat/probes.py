"""The routes /ping and /version, which vLLM and MLflow share. /health is a native route."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from rootstock.service.api.document.error_codes import raises
from rootstock.service.api.health import ServerState, readyz

router = APIRouter()


class ServerVersion(BaseModel):
    """The version of this server."""

    version: str


@router.get("/ping", response_model=ServerState, openapi_extra=raises("not_ready", "registry_unavailable"))
async def ping(request: Request) -> Response:
    """Answer as /readyz: 200 while requests are admitted, else 503."""
    return await readyz(request)


@router.get("/version")
async def server_version() -> ServerVersion:
    """Return the version of this server."""
    return ServerVersion(version=version("rootstock"))
