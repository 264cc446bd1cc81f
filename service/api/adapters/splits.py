"""The routes that share an alias's requests between versions, and that end such a split."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from rootstock.adapters.registry import Resolution
from rootstock.service.api.adapters.aliases import Alias
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import CHANGE_OF_VERSION, STORED, raises
from rootstock.service.api.server import Server, check_activation, server_of
from rootstock.service.api.strict import Strict

router = APIRouter(route_class=BodyRoute)
_ROUTE = "/v1/adapters/{name}/aliases/{alias}/split"
_CODES = (*CHANGE_OF_VERSION, "unknown_alias", "no_live_version", "invalid_name")

# A version in a JSON key. Another way to write the number, as 04, could name a version twice.
VersionKey = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
Percent = Annotated[float, Field(gt=0, le=100, strict=True, allow_inf_nan=False)]


class SplitBody(Strict):
    """The body that splits an alias: the percent of its requests for each version, at most 100 in all."""

    candidates: Annotated[
        dict[VersionKey, Percent],
        Field(
            min_length=1,
            max_length=16,
            examples=[{"4": 10}, {"4": 10, "5": 2.5}],
            json_schema_extra={"additionalProperties": False},
        ),
    ]


class SplitAnswer(BaseModel):
    """The split of an alias. `version`, which the alias points to, answers the rest of the requests."""

    name: str
    alias: str
    version: int
    candidates: dict[str, float]


@router.put(
    _ROUTE, openapi_extra=raises(*_CODES, "invalid_split", "approval_needed", "foundation_not_hosted", *STORED)
)
async def set_split(request: Request, name: str, alias: str, body: SplitBody) -> SplitAnswer:
    """Let other versions answer shares of an alias's requests, until the alias moves or the split ends.

    Each candidate is loaded first, so that one which this server cannot serve gets no request. Requests with the
    same X-Request-Key, or else with the same key, get the same version.
    """
    server = server_of(request)
    candidates = {int(version): percent for version, percent in body.candidates.items()}
    await check_activation(request, name, alias, *candidates)
    for version in candidates:
        await server.foundations.load(await asyncio.to_thread(_resolution, server, name, version))
    split = await asyncio.to_thread(server.registry.set_split, name, alias, candidates)
    server.pins.moved()
    shown = written(split.candidates)
    return SplitAnswer(name=split.name, alias=split.alias, version=split.version, candidates=shown)


@router.delete(_ROUTE, openapi_extra=raises(*_CODES, "no_split"))
async def end_split(request: Request, name: str, alias: str) -> Alias:
    """End the split of an alias, which then means one version again."""
    server = server_of(request)
    pointer = await asyncio.to_thread(server.registry.end_split, name, alias)
    server.pins.moved()
    return Alias(name=pointer.name, alias=pointer.alias, version=pointer.version, digest=pointer.digest)


def written(candidates: Mapping[int, float]) -> dict[str, float]:
    """Return the shares of a split as a JSON object has them."""
    return {str(version): percent for version, percent in candidates.items()}


def _resolution(server: Server, name: str, version: int) -> Resolution:
    detail = server.registry.version(name, version)
    return Resolution(detail.name, version, detail.digest, detail.foundation, detail.task)
