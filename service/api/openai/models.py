"""The routes GET /v1/models and GET /v1/limits: the models to call, and the limits of a call."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from rootstock.adapters import tasks
from rootstock.adapters.registry import AdapterSummary
from rootstock.service.api.server import Server, server_of
from rootstock.service.engine.encode.size import MAX_CHARACTERS
from rootstock.service.foundations import FoundationHost

router = APIRouter()
_PAGE = 500


class Model(BaseModel):
    """A model in OpenAI's list.

    `root` is the adapter's name or the foundation's checkpoint, and `parent` the foundation of an adapter.
    `task` is its default task, and `tasks` are all tasks that a request may ask it for.
    """

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "rootstock"
    root: str
    parent: str | None
    task: str | None
    tasks: list[str]


class Models(BaseModel):
    """The foundations and all adapters."""

    object: Literal["list"] = "list"
    data: list[Model]


class FoundationLimits(BaseModel):
    """A foundation and its runner. `tasks` are the tasks that it supports without an adapter."""

    id: str
    name: str
    revision: str | None
    fingerprint: str
    model_type: str
    hidden_size: int
    max_tokens: int
    embedding_max_tokens: int
    tasks: list[str]
    runner: str
    precision: str


class LimitsAnswer(BaseModel):
    """The limits of this server. `foundation`, `runner` and `precision` describe the first foundation."""

    foundation: FoundationLimits
    foundations: list[FoundationLimits]
    tasks: list[str]
    adapter_kinds: list[str]
    head_kinds: list[str]
    max_rank: int
    max_inputs: int
    max_characters: int
    max_body_bytes: int
    max_bundle_bytes: int
    max_unpacked_bytes: int
    max_timeout: float
    runner: str
    precision: str


@router.get("/v1/models")
async def models(request: Request) -> Models:
    """List every model that a request can name: the foundations, then the adapters by name."""
    server = server_of(request)
    adapters = await asyncio.to_thread(_every_adapter, server)
    bases = [
        Model(id=host.name, root=host.spec.name, parent=None, task=own[0], tasks=list(own))
        for host in server.foundations
        for own in [host.spec.own_tasks]
    ]
    parents = {host.spec.fingerprint: host.name for host in server.foundations}
    first = server.foundations.first.name
    listed = [
        Model(
            id=a.name,
            root=a.name,
            parent=first if a.foundation is None else parents.get(a.foundation),
            task=a.task,
            tasks=[a.task] if a.task else [],
        )
        for a in adapters
    ]
    return Models(data=[*bases, *listed])


@router.get("/v1/limits")
async def limits(request: Request) -> LimitsAnswer:
    """Return the limits for adapters and requests."""
    server = server_of(request)
    foundations = [_foundation_limits(host) for host in server.foundations]
    engine = server.foundations.first.engine
    encoders = [host.encoder for host in server.foundations]
    inputs = [encoder.limits.max_inputs for encoder in encoders if encoder is not None]
    return LimitsAnswer(
        foundation=foundations[0],
        foundations=foundations,
        tasks=sorted({task for host in server.foundations for task in host.spec.tasks}),
        adapter_kinds=server.publisher.kinds,
        head_kinds=sorted({kind for task in tasks.TASKS for kind in task.heads}),
        max_rank=server.bundle_limits.max_rank,
        max_inputs=max(inputs, default=1),
        max_characters=MAX_CHARACTERS,
        max_body_bytes=server.max_body_bytes,
        max_bundle_bytes=server.bundle_limits.max_bundle_bytes,
        max_unpacked_bytes=server.bundle_limits.max_unpacked_bytes,
        max_timeout=server.foundations.timeout_s,
        runner=engine.runner.name,
        precision=engine.runner.precision,
    )


def _foundation_limits(host: FoundationHost) -> FoundationLimits:
    spec = host.spec
    return FoundationLimits(
        id=host.name,
        name=spec.name,
        revision=spec.revision,
        fingerprint=spec.fingerprint,
        model_type=spec.model_type,
        hidden_size=spec.hidden_size,
        max_tokens=spec.max_tokens,
        embedding_max_tokens=spec.embedding.max_tokens,
        tasks=list(spec.own_tasks),
        runner=host.engine.runner.name,
        precision=host.engine.runner.precision,
    )


def _every_adapter(server: Server) -> list[AdapterSummary]:
    adapters: list[AdapterSummary] = []
    after: str | None = None
    while True:
        page = server.registry.list(_PAGE, after)
        adapters += page.adapters
        after = page.next
        if after is None:
            return adapters
