"""The routes of the Open Inference Protocol v2, which KServe and Triton have, and KServe's v1 `:predict`."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, StrictStr

from rootstock.adapters.reference import Reference
from rootstock.adapters.tasks import task_named
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.inference_protocol.inference_route import HEADER, InferenceRoute
from rootstock.service.api.compat.inference_protocol.plain_error import PlainError, plain
from rootstock.service.api.compat.inference_protocol.tensors import (
    InputTensor,
    Output,
    RequestedOutput,
    chosen_outputs,
    input_names,
    inputs_of,
    output_forms,
    outputs_of,
)
from rootstock.service.api.compat.served_model import ServedModel, find_model
from rootstock.service.api.document.error_codes import REFERENCE, TEXT, raises
from rootstock.service.api.health import livez, readyz
from rootstock.service.api.inputs import InputForm
from rootstock.service.api.options import TimeoutHeader, Urgency, options_of, sticky_of
from rootstock.service.api.predict import Body, predict_given, while_connected
from rootstock.service.api.server import Server, server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, WrongRoute

_PLATFORM = "rootstock"
_PAGE = 500
# An answer with tensors as bytes behind its JSON.
_BINARY: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}


router = APIRouter(route_class=InferenceRoute, responses={"default": {"model": PlainError}})
v1_router = APIRouter(route_class=BodyRoute)


class ServerMetadata(BaseModel):
    """The name and version of the server, and the extensions of the protocol that it has."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """The name, datatype and shape of a tensor; -1 is a size that depends on the request."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model with its versions, inputs and outputs. A foundation has no versions."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReadiness(BaseModel):
    """A model that can be called."""

    name: str
    ready: Literal[True] = True


class ServerLiveness(BaseModel):
    """A server that is alive."""

    live: Literal[True] = True


class ServerReadiness(BaseModel):
    """A server that admits requests."""

    ready: Literal[True] = True


class IndexedModel(BaseModel):
    """A version of a model; `reason` says why one is not available."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class InferBody(Strict):
    """The body of an inference: tensors of texts, and the outputs to return, all by default.

    `model_name` repeats the name in the path, as KServe's client does. `parameters` are those of the model's
    task; `binary_data_output` asks for outputs as bytes behind the JSON.
    """

    id: StrictStr | None = None
    model_name: StrictStr | None = None
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[RequestedOutput], Field(max_length=8)] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class InstancesBody(Body):
    """The body of a prediction in KServe's v1 protocol."""

    instances: Annotated[list[InputForm], Field(min_length=1, fail_fast=True)]
    parameters: dict[str, Any] = Field(default_factory=dict)


class InstancePredictions(BaseModel):
    """The predictions of the instances, in their order."""

    predictions: list[Any]


@router.get("/v2")
async def server_metadata() -> ServerMetadata:
    """Return the name and version of this server."""
    extensions = ["binary_tensor_data", "model_repository"]
    return ServerMetadata(name=_PLATFORM, version=version("rootstock"), extensions=extensions)


@router.get("/v2/health/live", response_model=ServerLiveness, openapi_extra=raises("engine_ended"))
async def live(request: Request) -> Response:
    """Answer as /livez, in the protocol's form."""
    return _probe(await livez(request), "live")


@router.get(
    "/v2/health/ready",
    response_model=ServerReadiness,
    openapi_extra=raises("not_ready", "registry_unavailable"),
)
async def ready(request: Request) -> Response:
    """Answer as /readyz, in the protocol's form."""
    return _probe(await readyz(request), "ready")


@router.get("/v2/models/{name}", openapi_extra=raises(*TEXT, "wrong_task"))
@router.get("/v2/models/{name}/versions/{version}", openapi_extra=raises(*TEXT, "wrong_task"))
async def model_metadata(request: Request, name: str, version: int | None = None) -> ModelMetadata:
    """Return the inputs and outputs of a model."""
    server = server_of(request)
    reference = _reference(name, version)
    model = await _model_of_texts(server, request, reference)
    inputs = [TensorMetadata(name=one, datatype="BYTES", shape=[-1]) for one in input_names(model.task)]
    outputs = [TensorMetadata(**form._asdict()) for form in output_forms(model)]
    return ModelMetadata(
        name=name,
        versions=await asyncio.to_thread(_versions, server, model.reference),
        platform=_PLATFORM,
        inputs=inputs,
        outputs=outputs,
    )


@router.get("/v2/models/{name}/ready", openapi_extra=raises(*REFERENCE))
@router.get("/v2/models/{name}/versions/{version}/ready", openapi_extra=raises(*REFERENCE))
async def model_ready(request: Request, name: str, version: int | None = None) -> ModelReadiness:
    """Answer 200 for a model that this server has, else 404."""
    foundations = server_of(request).foundations
    await asyncio.to_thread(foundations.directory.host, _reference(name, version), sticky_of(request))
    return ModelReadiness(name=name)


@router.post("/v2/models/{name}/infer", responses=_BINARY)
@router.post("/v2/models/{name}/versions/{version}/infer", responses=_BINARY)
async def infer(
    body: InferBody, request: Request, name: str, version: int | None = None, within: TimeoutHeader = None
) -> Response:
    """Predict for tensors of texts. Each output has the values of /v1/predict's predictions."""
    foundations = server_of(request).foundations
    if body.model_name not in (None, name):
        raise InvalidInput(
            f"model_name is {body.model_name[:64]!r} and the path names {name!r}; send one model", "model_name"
        )
    parameters = dict(body.parameters)
    all_binary = parameters.pop("binary_data_output", False)
    if not isinstance(all_binary, bool):
        raise InvalidParameter(
            f"binary_data_output is {all_binary!r}; send true or false", "parameters.binary_data_output"
        )
    model = await _model_of_texts(server_of(request), request, _reference(name, version))
    inputs = inputs_of(body.inputs, getattr(request.state, "binary", b""), model.task)
    if model.task == "text-classification":
        if "top_k" in parameters:
            raise InvalidParameter("the outputs hold every label; leave top_k out", "parameters.top_k")
        parameters["top_k"] = None
    options = options_of(Urgency(), request, within)
    answer = await while_connected(
        request, foundations.predict(model.reference, inputs, parameters, None, options)
    )
    outputs = chosen_outputs(outputs_of(model, answer.predictions), body.outputs)
    head: dict[str, Any] = {"model_name": name, "outputs": []}
    head |= {} if answer.resolved.version is None else {"model_version": str(answer.resolved.version)}
    head |= {} if body.id is None else {"id": body.id}
    asked = [one.parameters.binary_data for one in body.outputs or ()] or [None] * len(outputs)
    return _tensors(head, outputs, [all_binary if one is None else one for one in asked])


@router.post("/v2/repository/index", openapi_extra=raises("registry_unavailable"))
async def repository_index(request: Request) -> list[IndexedModel]:
    """List every version of every model. The body is not read."""
    return await asyncio.to_thread(_every_version, server_of(request))


@v1_router.post("/v1/models/{name:path}:predict")
async def predict_instances(
    body: InstancesBody, request: Request, name: str, within: TimeoutHeader = None
) -> InstancePredictions:
    """Predict for instances, as /v1/predict does for inputs."""
    options = options_of(body, request, within)
    call = predict_given(request, name, body.instances, body.parameters, None, options)
    answer = await while_connected(request, call)
    return InstancePredictions(predictions=answer.predictions)


async def _model_of_texts(server: Server, request: Request, reference: str) -> ServedModel:
    """Return the model of a reference. Raise WrongRoute for a model of images or recordings."""
    model = await while_connected(request, find_model(server.foundations, reference, sticky_of(request)))
    if (modality := task_named(model.task).modality) != "text":
        raise WrongRoute(
            f"model {reference!r} takes {modality} inputs, and the tensors of this route hold texts; send files "
            "to /v1/predict",
            "model",
        )
    return model


def _tensors(head: dict[str, Any], outputs: list[Output], binary: list[bool]) -> Response:
    """Return the outputs with the JSON `head`; those that are binary follow it as bytes, in the same order."""
    tail = b""
    for output, is_binary in zip(outputs, binary, strict=True):
        form = {"name": output.name, "datatype": output.datatype, "shape": list(output.values.shape)}
        if is_binary:
            raw = output.raw()
            tail += raw
            head["outputs"].append({**form, "parameters": {"binary_data_size": len(raw)}})
        else:
            head["outputs"].append({**form, "data": output.data()})
    if not any(binary):
        return JSONResponse(head)
    text = json.dumps(head).encode()
    return Response(text + tail, media_type="application/octet-stream", headers={HEADER: str(len(text))})


def _reference(name: str, version: int | None) -> str:
    return name if version is None else f"{name}@{version}"


def _probe(native: JSONResponse, key: str) -> Response:
    return JSONResponse({key: True}) if native.status_code == 200 else plain(native)


def _versions(server: Server, reference: str) -> list[str]:
    parsed = Reference.parse(reference)
    if parsed.digest_prefix is None:
        return []
    return [str(one.version) for one in server.registry.show(parsed.path).versions]


def _every_version(server: Server) -> list[IndexedModel]:
    listed = [IndexedModel(name=host.name, version="", state="READY", reason="") for host in server.foundations]
    hosted = {host.spec.fingerprint for host in server.foundations} | {None}
    after: str | None = None
    while True:
        page = server.registry.list(_PAGE, after)
        for one in page.adapters:
            here = one.foundation in hosted
            listed += [
                IndexedModel(
                    name=one.name,
                    version=str(number),
                    state="READY" if here else "UNAVAILABLE",
                    reason="" if here else "this server does not host its foundation",
                )
                for number in one.versions
            ]
        after = page.next
        if after is None:
            return listed
