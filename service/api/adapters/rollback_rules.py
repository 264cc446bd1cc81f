"""The routes of an adapter's rollback rule."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from rootstock.adapters.registry.rollout_records import (
    MAX_P95_RATIO,
    MAX_REQUESTS,
    MAX_WINDOW_SECONDS,
    NamedRule,
    RollbackRule,
)
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import ADAPTER, CHANGE, raises
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict, at_least_one

router = APIRouter(route_class=BodyRoute)
_DEFAULT = RollbackRule()
Share = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


class RuleBody(Strict):
    """The body that sets a rule; a limit that is left out or null does not hold. It needs at least one."""

    model_config = ConfigDict(
        json_schema_extra=at_least_one(max_error_rate="number", max_disagreement="number", max_p95_ratio="number")
    )

    window_seconds: Annotated[float, Field(ge=1, le=MAX_WINDOW_SECONDS, strict=True, allow_inf_nan=False)] = (
        _DEFAULT.window_seconds
    )
    min_requests: Annotated[int, Field(ge=1, le=MAX_REQUESTS, strict=True)] = _DEFAULT.min_requests
    max_error_rate: Share | None = None
    max_disagreement: Share | None = None
    max_p95_ratio: Annotated[float, Field(ge=1, le=MAX_P95_RATIO, strict=True, allow_inf_nan=False)] | None = None


class RuleState(BaseModel):
    """The limits of a rollback rule; one that is null does not hold.

    The rule judges the requests of the last `window_seconds`, once there are `min_requests`. `max_error_rate` and
    `max_disagreement` are shares from 0 to 1. `max_p95_ratio` is over the incumbent's p95.
    """

    window_seconds: float
    min_requests: int
    max_error_rate: float | None
    max_disagreement: float | None
    max_p95_ratio: float | None


class AdapterRule(BaseModel):
    """An adapter with its rollback rule; null if it has none now."""

    name: str
    rule: RuleState | None


@router.get("/v1/adapters/{name}/rollback-rule", openapi_extra=raises(*ADAPTER, "no_rule"))
async def show_rule(request: Request, name: str) -> AdapterRule:
    """Show the rollback rule of an adapter."""
    return _answer(await asyncio.to_thread(server_of(request).registry.rule, name))


@router.put("/v1/adapters/{name}/rollback-rule", openapi_extra=raises(*CHANGE, "invalid_rule"))
async def set_rule(request: Request, name: str, body: RuleBody) -> AdapterRule:
    """Set the limits that new versions of an adapter have to keep.

    A version that breaks one is taken back: its split or its shadow ends, or `live` moves back.
    """
    server = server_of(request)
    found = await asyncio.to_thread(server.registry.set_rule, name, RollbackRule(**body.model_dump()))
    await server.rollout.refresh()
    return _answer(found)


@router.delete("/v1/adapters/{name}/rollback-rule", openapi_extra=raises(*CHANGE, "no_rule"))
async def remove_rule(request: Request, name: str) -> AdapterRule:
    """Remove the rollback rule of an adapter."""
    server = server_of(request)
    found = await asyncio.to_thread(server.registry.remove_rule, name)
    await server.rollout.refresh()
    return AdapterRule(name=found.name, rule=None)


def state_of(rule: RollbackRule | None) -> RuleState | None:
    """Return a rule as an answer states it."""
    return None if rule is None else RuleState(**rule.to_json())


def _answer(found: NamedRule) -> AdapterRule:
    return AdapterRule(name=found.name, rule=state_of(found.rule))
