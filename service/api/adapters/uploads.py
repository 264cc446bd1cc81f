"""The route POST /v1/adapters: an upload is verified and published."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, Field

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.bundle.labels import read_labels
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.document.error_codes import PUBLISHING, raises
from rootstock.service.api.server import principal_of, server_of
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


@router.post(
    "/v1/adapters",
    status_code=201,
    response_model=PublishedVersion,
    responses={200: {"description": "The same content is published already.", "model": PublishedVersion}},
    openapi_extra=raises(*PUBLISHING),
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
    check_room = partial(server.quotas.check_stored, principal_of(request))
    done = await server.publisher.publish(bundle.read, name, plain, activate, check_room)
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


def _check_fields(fields: list[str]) -> None:
    """Raise InvalidParameter for an unknown or a repeated form field.

    A misspelt `activate` must not publish, and of two bundles neither is certain to be the right one.
    """
    for field in fields:
        if field not in _FIELDS:
            raise InvalidParameter(f"unknown form field {field!r}; known: {', '.join(_FIELDS)}", field)
        if (count := fields.count(field)) > 1:
            raise InvalidParameter(f"the form field {field!r} occurs {count} times; send it once", field)
