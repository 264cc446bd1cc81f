"""A request's urgency, and the time for which its answer is of use."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Request
from pydantic import BaseModel, Field

from rootstock.service.api.server import server_of
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.core.options import RequestOptions
from rootstock.service.engine.core.work import Priority

HEADER = "X-Request-Timeout"
TimeoutHeader = Annotated[
    float | None,
    Header(alias=HEADER, gt=0, allow_inf_nan=False, description="As `timeout` in the body; the smaller counts."),
]


class Urgency(BaseModel):
    """`priority`: a larger or smaller share while others wait. `timeout`: seconds until the answer is a 504."""

    priority: Priority = "normal"
    timeout: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False, examples=[10])] | None = None


def options_of(body: Urgency, request: Request, header: float | None) -> RequestOptions:
    """Return the engine's terms. Raise InvalidParameter for a timeout over the server's own."""
    most = server_of(request).foundations.first.engine.limits.timeout_s
    given = {name: s for name, s in (("timeout", body.timeout), (HEADER, header)) if s is not None}
    for name, seconds in given.items():
        if seconds > most:
            raise InvalidParameter(f"{name} is {seconds:g} seconds; this server waits {most:g} at most", name)
    return RequestOptions(priority=body.priority, timeout_s=min(given.values(), default=None))
