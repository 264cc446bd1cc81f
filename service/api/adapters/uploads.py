"""The route POST /v1/adapters: an upload, or an adapter at an address, is verified and published."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import Response
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr
from starlette.routing import Match
from starlette.types import Scope

from rootstock.adapters.bundle import PlainFields
from rootstock.adapters.bundle.labels import read_labels
from rootstock.adapters.sources.remote.source_reference import read_source_reference
from rootstock.service.api.body import BodyRoute, declared_type, parse_json
from rootstock.service.api.document.error_codes import PUBLISHING, raises
from rootstock.service.api.errors import InvalidBody, UnsupportedBody
from rootstock.service.api.server import Server, principal_of, server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidParameter, TooLarge
from rootstock.service.publishing import Publication

router = APIRouter(route_class=BodyRoute)
_MAX_JSON = 2**22
_FIELDS = ("bundle", "name", "task", "labels", "problem_type", "max_length", "foundation", "activate")


class ConvertedFrom(BaseModel):
    """A conversion to LoRA: the uploaded kind, the rank of the LoRA and the largest difference of the outputs.

    `max_difference` is relative: a share of the largest output.
    """

    kind: str = Field(alias="from")
    rank: int
    max_difference: float


class UploadSignature(BaseModel):
    """The signature of an upload.

    `signer` is the name of the trusted key, or null if the server trusts no key. `of` is "bundle", or "folder"
    for a plain PEFT folder with its form fields. `digest` is the signed one; `key` and `signature` are in base64.
    """

    signer: str | None
    schema_: int = Field(alias="schema")
    algorithm: str
    of: str
    digest: str
    key: str
    signature: str


class Verification(BaseModel):
    """The result of a verification.

    `golden` is "passed", or "none" for a bundle without a golden set. Without one, no outputs are compared and
    `max_difference` is null. `ignored` lists the known files of the upload that the bundle leaves out.
    `chat_template` states whether the bundle holds a chat template, with which the server has rendered a chat.
    `signature` is null without a signature, and `source` for an upload that came from no address.
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
    signature: UploadSignature | None = None
    source: str | None = None


class PublishedVersion(BaseModel):
    """A published version.

    `awaits_approval` tells that it was to become live, and that somebody else has to approve it first.
    """

    name: str
    version: int
    digest: str
    task: str
    status: str
    verification: Verification
    awaits_approval: bool


class SourceBody(Strict):
    """An adapter at an address, and the name to publish it under.

    `source` is `hf://org/name@<40 hex digits>`, `https://host/path.zip` or `s3://bucket/key`. The last two may
    end in `#sha256=<64 hex digits>`. The other fields are those of the form.
    """

    name: StrictStr
    source: StrictStr
    task: StrictStr | None = None
    labels: list[Any] | dict[str, Any] | None = None
    problem_type: StrictStr | None = None
    max_length: StrictInt | None = None
    foundation: StrictStr | None = None
    activate: StrictBool = True


class SourceRoute(BodyRoute):
    """A route for JSON. It leaves a body that is declared as a form to the route of that form."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether this route handles a request."""
        match, child = super().matches(scope)
        declared = next((v for k, v in scope.get("headers", ()) if k == b"content-type"), b"")
        is_form = declared.partition(b";")[0].strip().lower() == b"multipart/form-data"
        return (Match.NONE, {}) if match is Match.FULL and is_form else (match, child)

    async def read(self, request: Request) -> Any:
        """Return the JSON value of the body. Raise TooLarge for one as large as a bundle."""
        size = 0
        parts = []
        async for part in request.stream():
            size += len(part)
            if size > _MAX_JSON:
                raise TooLarge(f"the JSON has more than {_MAX_JSON} bytes, which is the limit; send less", "body")
            parts.append(part)
        raw = b"".join(parts)
        try:
            return parse_json(raw)
        except InvalidBody as error:
            raise self.refusal(raw, declared_type(request), error) from error

    def refusal(self, raw: bytes, declared: str, error: InvalidBody) -> InvalidBody | UnsupportedBody:
        """Return the error of a body that is no JSON: one about its type if that is another one, or none."""
        if declared == "application/json" or declared.endswith("+json"):
            return error
        return UnsupportedBody(
            f"the body is {declared or 'without a Content-Type'}; this route takes a form or JSON; send "
            "multipart/form-data, as curl does with -F bundle=@adapter.zip -F name=my-adapter, or an object with "
            "`name` and `source`"
        )


sources = APIRouter(route_class=SourceRoute)


@sources.post("/v1/adapters", status_code=201, response_model=PublishedVersion, include_in_schema=False)
async def publish_source(request: Request, body: SourceBody) -> Response:
    """Fetch an adapter from an address, verify it, and publish it as the next version of `name`."""
    server = server_of(request)
    source = read_source_reference(body.source)
    labels = None if body.labels is None else read_labels(json.dumps(body.labels))
    plain = PlainFields(body.task, labels, body.problem_type, body.max_length, body.foundation)
    server.publisher.check_name(body.name)
    async with server.sources.fetched(source) as data:

        async def read() -> bytes:
            return data

        check_room = partial(server.quotas.check_stored, principal_of(request))
        may_activate = server.approval.activation_by(principal_of(request))
        done = await server.publisher.publish(
            read, body.name, plain, body.activate, check_room, str(source), may_activate
        )
    return _answer(server, done)


@router.post(
    "/v1/adapters",
    status_code=201,
    response_model=PublishedVersion,
    responses={200: {"description": "The same content is published already.", "model": PublishedVersion}},
    openapi_extra={
        **raises(*PUBLISHING, "invalid_source", "source_not_allowed", "source_unavailable", "request_too_large"),
        "requestBody": {"content": {"application/json": {"schema": SourceBody.model_json_schema()}}},
    },
)
async def upload(
    request: Request,
    bundle: Annotated[UploadFile, File(description="The zip of a bundle or of a plain PEFT folder.")],
    name: Annotated[str, Form(min_length=1)],
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
    """Verify an adapter and publish it as the next version of `name`.

    A JSON body names an adapter at an address in `source`, and the server fetches it.
    """
    _check_fields([field for field, _ in (await request.form()).multi_items()])
    label_names = None if labels is None else read_labels(labels)
    plain = PlainFields(task, label_names, problem_type, max_length, foundation)
    server = server_of(request)
    check_room = partial(server.quotas.check_stored, principal_of(request))
    may_activate = server.approval.activation_by(principal_of(request))
    done = await server.publisher.publish(
        bundle.read, name, plain, activate, check_room, may_activate=may_activate
    )
    return _answer(server, done)


def _answer(server: Server, done: Publication) -> Response:
    """Return the answer to a publication, whose version requests may mean from now on."""
    server.pins.moved(f"{done.published.name}@{done.published.version}")
    answer = PublishedVersion(
        name=done.published.name,
        version=done.published.version,
        digest=done.published.digest,
        task=done.task,
        status="ready",
        verification=Verification.model_validate(done.verification),
        awaits_approval=done.awaits_approval,
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
