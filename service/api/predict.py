"""The route POST /v1/predict: inputs for one adapter, or the same inputs for several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr
from pydantic_core import to_json

from rootstock.service.api.composed_fields import ComposedFields, ModelField, asked_of, name_of, parts_of
from rootstock.service.api.document.error_codes import raises
from rootstock.service.api.errors import ErrorDetail, fault_detail
from rootstock.service.api.inputs import GivenInput, InputForm, read_inputs
from rootstock.service.api.media.media_content import media_bodies
from rootstock.service.api.media.media_route import MediaRoute
from rootstock.service.api.options import TimeoutHeader, Urgency, options_of
from rootstock.service.api.routing.routed_predictions import RoutedPredictions, RoutingFields, routed_predictions
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict, one_of
from rootstock.service.api.task_predictions import Prediction, TaskPrediction, Timings, Usage
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import InvalidParameter, WrongTask
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.encode.tasks.truncation import TRUNCATION
from rootstock.service.foundations import PredictCall
from rootstock.service.references.composed_model import Asked

router = APIRouter(route_class=MediaRoute)
Result = TypeVar("Result")


# The check ends at the first item that is not a string, so that a long list gives one error.
Strings = Annotated[list[StrictStr], Field(min_length=1, fail_fast=True)]


class Body(Urgency, Strict):
    """A JSON body with a priority and a timeout. Unknown keys are refused."""


class TruncationFields(Body):
    """The truncation of inputs that are too long, in one of three spellings. Without one, they are refused.

    `truncation` true cuts them. `truncate` does the same, and START or END says where to cut.
    `truncate_prompt_tokens` is the number of tokens to keep; -1 keeps as many as the model takes.
    """

    truncation: bool | None = None
    truncate: StrictBool | Literal["NONE", "START", "END"] | None = None
    truncate_prompt_tokens: Annotated[int, Field(strict=True)] | None = None

    @property
    def truncation_parameters(self) -> dict[str, Any]:
        """Return the truncation fields that the request has, as parameters of a task."""
        return {name: value for name in TRUNCATION if (value := getattr(self, name)) is not None}


class ModelsField(ModelField):
    """The field `models`, for several models about the same inputs."""

    models: Strings | None = None


class PredictBody(ComposedFields, ModelsField, Body):
    """The body of a prediction: `model`, `models` or `adapters`, and one input or a list of inputs.

    `task` chooses one of the foundation's tasks. An adapter has one task, and any other is refused. `routing` is
    for the model `auto` alone.
    """

    model_config = ConfigDict(json_schema_extra=one_of(model="string", models="array", adapters="array"))

    task: Annotated[StrictStr, Field(examples=["text-classification"])] | None = None
    inputs: InputForm | Annotated[list[InputForm], Field(min_length=1, fail_fast=True)]
    parameters: dict[str, Any] = Field(default_factory=dict)
    routing: RoutingFields | None = None


class FailedPrediction(BaseModel):
    """The error of one reference of a request for several; the other references have their answers."""

    model: str
    error: ErrorDetail


class Predictions(BaseModel):
    """The answers of a request for several models, in the order of `models`."""

    results: list[TaskPrediction | FailedPrediction]


@router.post(
    "/v1/predict",
    response_model=TaskPrediction | Predictions | RoutedPredictions,
    openapi_extra={
        **media_bodies("model", "models", "adapters", "head", "task", "parameters", "priority", "timeout"),
        **raises("no_router", "invalid_selector", "no_route", "invalid_route"),
    },
)
async def predict(body: PredictBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Predict with one adapter (`model`), several as one (`adapters`), or each of several (`models`).

    The model `auto` lets a selector adapter choose the adapter of each input.
    """
    options = options_of(body, request, within)
    if body.model is not None and server_of(request).foundations.directory.is_routed(body.model):
        return _json(await while_connected(request, _routed(body, body.model, request, options)))
    if body.routing is not None:
        raise InvalidParameter("routing is for the model auto; leave it out, or set model to auto", "routing")
    given = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    foundations = server_of(request).foundations
    try:
        inputs = await while_connected(request, read_inputs(request, given))
        if body.models is not None:
            calls = foundations.predict_many(body.models, inputs, body.parameters, body.task, options)
            outcomes = await while_connected(request, calls)
            return _json({"results": _results(body.models, [_of_field(one) for one in outcomes])})
        # Only now, because addresses may take long to read and a part may be deleted meanwhile.
        asked = asked_of(body, request)
        call = foundations.predict(asked, inputs, body.parameters, body.task, options)
        answer = await while_connected(request, call)
    except WrongTask as error:
        raise _of_field(error) from None
    return _json(_prediction(answer, name_of(asked)))


def _of_field(outcome: Result) -> Result:
    """Return an outcome. If its error is about the task, it names the field `task`."""
    if isinstance(outcome, WrongTask):
        outcome.param = "task"
    return outcome


async def predict_given(
    request: Request,
    model: Asked,
    given: Sequence[GivenInput],
    parameters: Mapping[str, Any],
    task: str | None,
    options: RequestOptions,
) -> Answer:
    """Return one model's answer to the inputs. Raise as `read_inputs` and `Foundations.predict` do."""
    inputs = await read_inputs(request, given)
    return await server_of(request).foundations.predict(model, inputs, parameters, task, options)


async def _routed(body: PredictBody, model: str, request: Request, options: RequestOptions) -> RoutedPredictions:
    """Return each input's route. Raise the error of an input that stands alone, not in a list."""
    server, asked = server_of(request), body.routing or RoutingFields()
    inputs = await read_inputs(request, body.inputs if isinstance(body.inputs, list) else [body.inputs])
    rule = server.router.rule.overridden(asked.threshold, asked.fallback)
    call = PredictCall(inputs, body.parameters, body.task, options)
    answer = await server.router.predict(server.foundations, model, call, rule)
    errors = [_of_field(route.error) for route in answer.routes]
    if (error := errors[0]) is not None and not isinstance(body.inputs, list):
        raise error
    return routed_predictions(model, answer)


class ClientLeft(Exception):
    """The client closed the connection before its answer was ready."""


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of `work`.

    If the client disconnects first, cancel the work and raise ClientLeft.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeft
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _results(
    models: Sequence[str], outcomes: Sequence[Answer | Exception]
) -> list[Prediction | FailedPrediction]:
    """Return the results in order; a reference that failed has its error instead of a prediction."""
    return [
        _prediction(outcome, model)
        if isinstance(outcome, Answer)
        else FailedPrediction(model=model, error=fault_detail("/v1/predict", outcome)[1])
        for model, outcome in zip(models, outcomes, strict=True)
    ]


def _prediction(answer: Answer, model: str) -> Prediction:
    return Prediction.model_construct(
        model=model,
        version=answer.resolved.version,
        digest=answer.resolved.digest,
        adapters=parts_of(answer.resolved),
        task=answer.task,
        predictions=answer.predictions,
        usage=usage_of(answer),
        timings=timings_of(answer),
    )


def usage_of(answer: Answer) -> Usage:
    """Return the number of tokens of an answer."""
    return Usage.model_construct(prompt_tokens=answer.prompt_tokens)


def timings_of(answer: Answer) -> Timings:
    """Return the times of an answer's steps."""
    return Timings.model_construct(
        load_ms=answer.load_ms,
        tokenize_ms=answer.tokenize_ms,
        queue_ms=answer.queue_ms,
        inference_ms=answer.inference_ms,
        total_ms=answer.total_ms,
    )


def _json(answer: Any) -> Response:
    """Return the answer as JSON. Pydantic writes it here, because FastAPI would check and encode it again."""
    return Response(to_json(answer), media_type="application/json")
