"""The priority, the timeout and the sticky key of a request."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import Header, Request
from pydantic import BaseModel, Field

from rootstock.service.api.server import principal_of, server_of
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.core.work import Priority
from rootstock.service.tenancy.access import ADMIN_KEY, API_KEY

HEADER = "X-Request-Timeout"
STICKY_HEADER = "X-Request-Key"
TimeoutHeader = Annotated[
    float | None,
    Header(
        alias=HEADER,
        gt=0,
        allow_inf_nan=False,
        description="Same as `timeout` in the body; the smaller one counts.",
    ),
]


class Urgency(BaseModel):
    """The urgency of a request: its `priority` in the queue and its `timeout`, in seconds until a 504."""

    priority: Priority = "normal"
    timeout: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False, examples=[10])] | None = None


def options_of(
    body: Urgency, request: Request, header: float | None, most: float | None = None
) -> RequestOptions:
    """Return the engine's options for a request. Raise InvalidParameter if a timeout exceeds the server's.

    `most` is the limit of the engine that answers, by default one of inputs in one pass.
    """
    if most is None:
        most = server_of(request).foundations.timeout_s
    timeouts = {name: s for name, s in (("timeout", body.timeout), (HEADER, header)) if s is not None}
    for name, seconds in timeouts.items():
        if seconds > most:
            raise InvalidParameter(
                f"{name} is {seconds:g} seconds; the limit of this server is {most:g}; ask for less", name
            )
    timeout_s = min(timeouts.values(), default=None)
    return RequestOptions(principal_of(request).tenant, body.priority, timeout_s, sticky_of(request))


def sticky_of(request: Request) -> str:
    """Return the key whose requests get equal versions under an alias with a split.

    It is the header X-Request-Key, else the id of the caller's key, else a random one of this request alone.
    """
    state = request.scope["state"]
    sticky: str | None = state.get("sticky")
    if sticky is None:
        key = principal_of(request).key
        # Many callers share a key of the settings, and all would get one version.
        shared = key in ("", API_KEY, ADMIN_KEY)
        sticky = request.headers.get(STICKY_HEADER) or (secrets.token_hex(8) if shared else key)
        # A request that resolves its reference twice gets one version.
        state["sticky"] = sticky
    return sticky
