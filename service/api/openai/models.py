"""The routes under /v1/models and GET /v1/limits: the models to call, and the limits of a call."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.convertors import PathConvertor, register_url_convertor

from rootstock.adapters import tasks
from rootstock.adapters.errors import AdapterError, UnknownAdapter
from rootstock.adapters.reference import AUTO, Reference, shown
from rootstock.adapters.registry import AdapterSummary
from rootstock.service.api.document.error_codes import REFERENCE, raises
from rootstock.service.api.server import Server, server_of
from rootstock.service.engine.core.errors import InvalidParameter
from rootstock.service.engine.encode.modalities.text_input import MAX_CHARACTERS
from rootstock.service.foundation_host import FoundationHost


class ModelName(PathConvertor):
    """The end of a path that names a model. It does not end in `:predict`, which KServe's route has."""

    regex = r".*(?<!:predict)"


register_url_convertor("model", ModelName())
router = APIRouter()
_PAGE = 500


class Model(BaseModel):
    """A model in OpenAI's list.

    `created` is the upload of an adapter's version in Unix seconds, and 0 for a foundation. In a list the
    version is the live one, else the newest. `root` is the adapter's name or the foundation's checkpoint, and
    `parent` the foundation of an adapter. `task` is its default task, and `tasks` are all tasks that a request
    may ask it for.
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
    """The foundations, other names that are served, the router if it has a selector, then the adapters by name.

    `next` is the `after` of the next page, or null.
    """

    object: Literal["list"] = "list"
    data: list[Model]
    next: str | None = None


class DeletedModel(BaseModel):
    """The reference of an adapter or a version that is deleted."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


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


@router.get("/v1/models", openapi_extra=raises("invalid_name", "registry_unavailable"))
async def models(
    request: Request,
    limit: Annotated[
        int | None, Query(ge=1, le=1000, description="Most models to return; all if absent.")
    ] = None,
    after: Annotated[str | None, Query(description="Id of the model after which the page begins.")] = None,
) -> Models:
    """List the models: the foundations, the names in ROOTSTOCK_SERVED_NAMES, the router, then the adapters."""
    return await asyncio.to_thread(_list, server_of(request), limit, after)


@router.get("/v1/models/{name:model}", openapi_extra=raises(*REFERENCE, "no_router"))
async def model(request: Request, name: str) -> Model:
    """Describe the model that a reference means."""
    return await asyncio.to_thread(_describe, server_of(request), name)


@router.delete(
    "/v1/models/{name:model}",
    openapi_extra=raises(*REFERENCE, "version_in_use", "not_owner", "store_full", "invalid_parameter"),
)
async def delete_model(request: Request, name: str) -> DeletedModel:
    """Delete an adapter, or with a reference to one version that version, once no request uses it."""
    server = server_of(request)
    adapter, version = await asyncio.to_thread(_deletable, server, name)
    await server.deletions.delete(adapter, version, force=version is None)
    server.pins.moved()
    return DeletedModel(id=name)


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


def _list(server: Server, limit: int | None, after: str | None) -> Models:
    own = [_of_foundation(host, host.name) for host in server.foundations]
    for name, reference in server.foundations.directory.names:
        # A name whose adapter is not there now is no model.
        with suppress(AdapterError):
            own.append(_describe(server, reference).model_copy(update={"id": name}))
    if server.router.selector is not None:
        with suppress(AdapterError):
            own.append(_describe(server, AUTO))
    ids = [one.id for one in own]
    if after is not None:
        own = own[ids.index(after) + 1 :] if after in ids else []
    start = None if after in ids else after
    if limit is None:
        return Models(data=[*own, *(_of_adapter(server, a) for a in _adapters_after(server, start))])
    room = limit - len(own)
    if room > 0:
        page = server.registry.list(room, start)
        return Models(data=[*own, *(_of_adapter(server, a) for a in page.adapters)], next=page.next)
    more = room < 0 or bool(server.registry.list(1).adapters)
    return Models(data=own[:limit], next=own[limit - 1].id if more else None)


def _adapters_after(server: Server, after: str | None) -> list[AdapterSummary]:
    adapters: list[AdapterSummary] = []
    while True:
        page = server.registry.list(_PAGE, after)
        adapters += page.adapters
        after = page.next
        if after is None:
            return adapters


def _describe(server: Server, reference: str) -> Model:
    host = server.foundations.directory.named(reference)
    if host is not None:
        return _of_foundation(host, reference)
    if server.foundations.directory.is_routed(reference):
        selector = server.router.selector_of(reference)
        if server.foundations.directory.is_routed(selector):
            raise UnknownAdapter(
                f"the selector {shown(selector)} is the router itself; name a text-classification adapter: "
                f"{AUTO}:NAME",
                param="model",
            )
        return _describe(server, selector).model_copy(update={"id": reference, "task": None, "tasks": []})
    resolution = server.foundations.directory.resolve(reference)
    version = server.registry.version(resolution.name, resolution.version)
    return Model(
        id=reference,
        created=_seconds(version.created_at),
        root=version.name,
        parent=_parent(server, version.foundation),
        task=version.task,
        tasks=[version.task],
    )


def _deletable(server: Server, reference: str) -> tuple[str, int | None]:
    """Return the name of a reference's adapter, and its version if the reference is not a name alone."""
    if server.foundations.directory.named(reference) is not None:
        raise InvalidParameter(
            f"{reference!r} is a foundation of this server, which cannot be deleted; take it out of "
            "ROOTSTOCK_FOUNDATIONS and restart",
            "model",
        )
    parsed = Reference.parse(server.foundations.directory.meaning(reference))
    if parsed == Reference(parsed.name, owner=parsed.owner):
        return parsed.path, None
    return parsed.path, server.registry.resolve(parsed).version


def _of_foundation(host: FoundationHost, name: str) -> Model:
    own = host.spec.own_tasks
    return Model(id=name, root=host.spec.name, parent=None, task=own[0], tasks=list(own))


def _of_adapter(server: Server, adapter: AdapterSummary) -> Model:
    return Model(
        id=adapter.name,
        created=_seconds(adapter.published_at),
        root=adapter.name,
        parent=_parent(server, adapter.foundation),
        task=adapter.task,
        tasks=[adapter.task] if adapter.task else [],
    )


def _parent(server: Server, fingerprint: str | None) -> str | None:
    """Return the name of the foundation with this fingerprint; None if this server does not have it."""
    host = server.foundations.directory.hosting(fingerprint)
    return None if host is None else host.name


def _seconds(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp())
