"""The routes that let a version shadow an adapter's `live`, and end that."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from rootstock.adapters.reference import LIVE
from rootstock.adapters.registry.rollout_records import Shadow
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import CHANGE, CHANGE_OF_VERSION, raises
from rootstock.service.api.server import check_activation, server_of
from rootstock.service.api.strict import Strict

router = APIRouter(route_class=BodyRoute)


class ShadowBody(Strict):
    """The body that sets a shadow: the version, and the share of live's requests that it computes too."""

    version: Annotated[int, Field(ge=1, strict=True, examples=[2])]
    percent: Annotated[float, Field(gt=0, le=100, strict=True, allow_inf_nan=False, examples=[20])]


class ShadowState(BaseModel):
    """A version that also computes a share of live's requests, in percent, without answering them."""

    version: int
    percent: float


class AdapterShadow(BaseModel):
    """An adapter with its shadow; null if it has none now."""

    name: str
    shadow: ShadowState | None


@router.put(
    "/v1/adapters/{name}/shadow", openapi_extra=raises(*CHANGE_OF_VERSION, "invalid_shadow", "approval_needed")
)
async def set_shadow(request: Request, name: str, body: ShadowBody) -> AdapterShadow:
    """Let a version compute a share of live's requests too.

    The server compares its answers with live's, and returns none of them.
    """
    server = server_of(request)
    await check_activation(request, name, LIVE, body.version)
    found = await asyncio.to_thread(server.registry.set_shadow, name, body.version, body.percent)
    await server.rollout.refresh()
    server.pins.moved(f"{found.name}@{found.shadow.version}")
    return AdapterShadow(name=found.name, shadow=state_of(found.shadow))


@router.delete("/v1/adapters/{name}/shadow", openapi_extra=raises(*CHANGE, "no_shadow"))
async def end_shadow(request: Request, name: str) -> AdapterShadow:
    """End the shadow of an adapter."""
    server = server_of(request)
    found = await asyncio.to_thread(server.registry.end_shadow, name)
    await server.rollout.refresh()
    return AdapterShadow(name=found.name, shadow=None)


def state_of(shadow: Shadow | None) -> ShadowState | None:
    """Return a shadow as an answer states it."""
    return None if shadow is None else ShadowState(version=shadow.version, percent=shadow.percent)
