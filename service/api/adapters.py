"""The routes under /v1/adapters: upload, list, show, download, set an alias, roll back and delete."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, Field

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.bundle.labels import read_labels
from rootstock.adapters.errors import AdapterError
from rootstock.adapters.registry import AdapterSummary, AliasPointer, VersionDetail
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.server import Server, server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidParameter

router = APIRouter(route_class=BodyRoute)
_FIELDS = ("bundle", "name", "task", "labels", "problem_type", "max_length", "foundation", "activate")


class ConvertedFrom(BaseModel):
    """A conversion to LoRA: the uploaded kind, the rank of the LoRA and the largest difference of the outputs.

    `max_difference` is relative: a share of the largest output.
    """

    kind: str = Field(alias="from")
    rank: int
    max_difference: float


class Verification(BaseModel):
    """The result of a verification.

    `golden` is "passed", or "none" for a bundle without a golden set. Without one, no outputs are compared and
    `max_difference` is null. `ignored` lists the known files of the upload that the bundle leaves out.
    `chat_template` states whether the bundle holds a chat template, with which the server has rendered a chat.
    """

    runner: str
    precision: str
    golden: str
    inputs: int
    max_difference: float | None
    warnings: list[str]
    ignored: list[str] = []
    converted: ConvertedFrom | None = None
    chat_template: bool = False


class PublishedVersion(BaseModel):
    """A published version."""

    name: str
    version: int
    digest: str
    task: str
    status: str
    verification: Verification


class ListedAdapter(BaseModel):
    """An adapter in a list. `residency` says where its live version is: "slot", "memory" or "store"."""

    name: str
    live: int | None
    versions: list[int]
    task: str | None
    aliases: dict[str, int]
    residency: str | None


class AdapterList(BaseModel):
    """A page of adapters in the order of their names; `next` is the `after` of the next page, or null."""

    adapters: list[ListedAdapter]
    next: str | None


class Version(BaseModel):
    """A version of an adapter. `residency` is "slot", "memory" or "store"; `size` is in bytes."""

    version: int
    digest: str
    task: str
    status: str
    created_at: datetime
    size: int
    residency: str
    verification: dict[str, Any]


class AdapterAnswer(BaseModel):
    """An adapter with its versions, oldest first."""

    name: str
    live: int | None
    task: str | None
    aliases: dict[str, int]
    created_at: datetime
    versions: list[Version]


class AliasBody(Strict):
    """The body that sets an alias: the version to point to."""

    version: Annotated[int, Field(ge=1, strict=True)]


class Alias(BaseModel):
    """An alias and the version that it points to."""

    name: str
    alias: str
    version: int
    digest: str


@router.post(
    "/v1/adapters",
    status_code=201,
    response_model=PublishedVersion,
    responses={200: {"description": "The same content is published already.", "model": PublishedVersion}},
)
async def upload(
    request: Request,
    bundle: Annotated[UploadFile, File(description="The zip of a bundle or of a plain PEFT folder.")],
    name: Annotated[str, Form()],
    task: Annotated[str | None, Form()] = None,
    labels: Annotated[
        str | None, Form(description="JSON array of label names in id order, or a JSON object from id to label.")
    ] = None,
    problem_type: Annotated[str | None, Form()] = None,
    max_length: Annotated[int | None, Form()] = None,
    foundation: Annotated[
        str | None,
        Form(description="Foundation that a plain PEFT folder was trained on; by default adapter_config.json's."),
    ] = None,
    activate: Annotated[bool, Form(description="Whether `live` moves to this version.")] = True,
) -> Response:
    """Verify an adapter and publish it as the next version of `name`."""
    _check_fields([field for field, _ in (await request.form()).multi_items()])
    label_names = None if labels is None else read_labels(labels)
    plain = PlainFields(task, label_names, problem_type, max_length, foundation)
    server = server_of(request)
    done = await server.publisher.publish(bundle.read, name, plain, activate)
    server.pins.moved(f"{done.published.name}@{done.published.version}")
    answer = PublishedVersion(
        name=done.published.name,
        version=done.published.version,
        digest=done.published.digest,
        task=done.task,
        status="ready",
        verification=Verification.model_validate(done.verification),
    )
    status = 201 if done.published.created else 200
    return Response(answer.model_dump_json(by_alias=True), status, media_type="application/json")


@router.get("/v1/adapters")
async def list_adapters(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="Name after which the page begins.")] = None,
) -> AdapterList:
    """List the adapters by name, a page at a time."""
    return await asyncio.to_thread(page_of, server_of(request), limit, after)


@router.get("/v1/adapters/{name}")
async def show_adapter(request: Request, name: str) -> AdapterAnswer:
    """Show an adapter, its aliases and its versions."""
    server = server_of(request)
    adapter = await asyncio.to_thread(server.registry.show, name)
    return AdapterAnswer(
        name=adapter.name,
        live=adapter.live,
        task=adapter.task,
        aliases=adapter.aliases,
        created_at=adapter.created_at,
        versions=[_version(server, v) for v in adapter.versions],
    )


@router.get("/v1/adapters/{name}/versions/{version}")
async def show_version(request: Request, name: str, version: int) -> Version:
    """Show one version of an adapter."""
    server = server_of(request)
    return _version(server, await asyncio.to_thread(server.registry.version, name, version))


@router.get(
    "/v1/adapters/{name}/versions/{version}/bundle",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "The bundle as one zip."}},
)
async def download(request: Request, name: str, version: int) -> Response:
    """Return the published bundle of a version, as a zip."""
    server = server_of(request)
    detail = await asyncio.to_thread(server.registry.version, name, version)
    data = await asyncio.to_thread(server.foundations.catalog_of(detail.foundation).read, detail.digest)
    headers = {
        "Content-Disposition": f'attachment; filename="{name}-{version}.zip"',
        "ETag": f'"{detail.digest}"',
    }
    return Response(data, media_type="application/zip", headers=headers)


@router.put("/v1/adapters/{name}/aliases/{alias}")
async def set_alias(request: Request, name: str, alias: str, body: AliasBody) -> Alias:
    """Point an alias at a version; requests that are admitted from now on use that version."""
    server = server_of(request)
    pointer = await asyncio.to_thread(server.registry.set_alias, name, alias, body.version)
    server.pins.moved(f"{pointer.name}@{pointer.version}")
    return _alias(pointer)


@router.post("/v1/adapters/{name}/rollback")
async def rollback(request: Request, name: str) -> Alias:
    """Move `live` back to the version that it pointed to before."""
    server = server_of(request)
    pointer = await asyncio.to_thread(server.registry.rollback, name)
    server.pins.moved(f"{pointer.name}@{pointer.version}")
    return _alias(pointer)


@router.delete("/v1/adapters/{name}", status_code=204)
async def delete_adapter(request: Request, name: str) -> Response:
    """Delete an adapter with all its versions, once no request uses them."""
    server = server_of(request)
    await server.publisher.delete(name, None, force=True)
    server.pins.moved()
    return Response(status_code=204)


@router.delete("/v1/adapters/{name}/versions/{version}", status_code=204)
async def delete_version(
    request: Request,
    name: str,
    version: int,
    force: Annotated[bool, Query(description="Delete it even if an alias points to it.")] = False,
) -> Response:
    """Delete a version, once no request uses it."""
    server = server_of(request)
    await server.publisher.delete(name, version, force=force)
    server.pins.moved()
    return Response(status_code=204)


def _check_fields(fields: list[str]) -> None:
    """Raise InvalidParameter for an unknown or a repeated form field.

    A misspelt `activate` must not publish, and of two bundles neither is certain to be the right one.
    """
    for field in fields:
        if field not in _FIELDS:
            raise InvalidParameter(f"unknown form field {field!r}; known: {', '.join(_FIELDS)}", field)
        if (count := fields.count(field)) > 1:
            raise InvalidParameter(f"the form field {field!r} occurs {count} times; send it once", field)


def page_of(server: Server, limit: int, after: str | None) -> AdapterList:
    """Return a page of at most `limit` adapters, in the order of their names."""
    page = server.registry.list(limit, after)
    listed = [
        ListedAdapter(
            name=a.name,
            live=a.live,
            versions=a.versions,
            task=a.task,
            aliases=a.aliases,
            residency=_residency(server, a),
        )
        for a in page.adapters
    ]
    return AdapterList(adapters=listed, next=page.next)


def _residency(server: Server, adapter: AdapterSummary) -> str | None:
    if adapter.live is None:
        return None
    try:
        return server.foundations.residency(server.registry.resolve(adapter.name).digest, adapter.foundation)
    except AdapterError:  # The adapter was deleted after the page was read.
        return None


def _version(server: Server, detail: VersionDetail) -> Version:
    return Version(
        version=detail.version,
        digest=detail.digest,
        task=detail.task,
        status=detail.status,
        created_at=detail.created_at,
        size=detail.size,
        residency=server.foundations.residency(detail.digest, detail.foundation),
        verification=detail.verification,
    )


def _alias(pointer: AliasPointer) -> Alias:
    return Alias(name=pointer.name, alias=pointer.alias, version=pointer.version, digest=pointer.digest)
