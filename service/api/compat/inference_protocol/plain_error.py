"""The Open Inference Protocol's form of an error, and the paths that have it."""

from __future__ import annotations

import json

from fastapi.responses import JSONResponse
from pydantic import BaseModel

# Cohere's API has routes under /v2 too.
_PATHS = ("/v2/health/", "/v2/models/", "/v2/repository/")
_KEPT = ("allow", "retry-after", "www-authenticate", "connection", "ratelimit", "ratelimit-policy")


class PlainError(BaseModel):
    """The protocol's form of an error: a message alone."""

    error: str


def plain(native: JSONResponse) -> JSONResponse:
    """Return a native error answer in the protocol's form, with its status and its headers."""
    message = json.loads(bytes(native.body))["error"]["message"]
    headers = {name: value for name, value in native.headers.items() if name in _KEPT}
    return JSONResponse(PlainError(error=message).model_dump(), native.status_code, headers)


def in_form_of(path: str, native: JSONResponse) -> JSONResponse:
    """Return a native error answer in the form that the routes of a path have."""
    return plain(native) if path == "/v2" or path.startswith(_PATHS) else native
