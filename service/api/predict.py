"""POST /v1/predict: inputs under one adapter, or the same inputs under many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Discriminator, Field, StrictBool, StrictStr, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.errors import ErrorDetail, fault_detail
from rootstock.service.api.options import TimeoutHeader, Urgency, options_of
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import WrongTask
from rootstock.service.engine.encode.modalities.text import Input, Question
from rootstock.service.engine.encode.tasks.truncation import TRUNCATION

router = APIRouter(route_class=BodyRoute)
Result = TypeVar("Result")


class TextPair(Strict):
    """A text, or two texts that one prediction is about."""

    text: StrictStr
    text_pair: StrictStr | None = None


class QuestionContext(Strict):
    """A question and the text that holds its answer."""

    question: StrictStr
    context: StrictStr


def _form(value: Any) -> str:
    """Tell which form an input means to have, so that an error speaks of that form."""
    keys = set(value) if isinstance(value, dict) else set()
    if keys & {"question", "context"}:
        return "a question"
    return "a pair" if keys & {"text", "text_pair"} else "a text"


Text = Annotated[
    Annotated[StrictStr, Tag("a text")]
    | Annotated[TextPair, Tag("a pair")]
    | Annotated[QuestionContext, Tag("a question")],
    Discriminator(_form),
]


# The first text that is none ends the check: of a list there is one error, however long it is.
Strings = Annotated[list[StrictStr], Field(min_length=1, fail_fast=True)]


class Body(Urgency, Strict):
    """A JSON body: unknown keys are refused."""


class TruncationFields(Body):
    """The treatment of an input that is too long, in one of three spellings; without one it is refused.

    `truncation`: cut it. `truncate`: the same, or where to cut, START or END. `truncate_prompt_tokens`: leave so
    many tokens; -1: as many as the model takes.
    """

    truncation: bool | None = None
    truncate: StrictBool | Literal["NONE", "START", "END"] | None = None
    truncate_prompt_tokens: Annotated[int, Field(strict=True)] | None = None

    @property
    def truncation_parameters(self) -> dict[str, Any]:
        """Return the fields that are given, as parameters of a task."""
        return {name: value for name in TRUNCATION if (value := getattr(self, name)) is not None}


class PredictBody(Body):
    """One of `model` and `models`, and the inputs: one, or a list.

    `task`: which of its tasks the foundation is asked for; an adapter has one, and is refused if it is another.
    """

    model: Annotated[StrictStr, Field(examples=["review-sentiment"])] | None = None
    models: Strings | None = Field(None, validate_default=True)
    task: Annotated[StrictStr, Field(examples=["text-classification"])] | None = None
    inputs: Text | Annotated[list[Text], Field(min_length=1, fail_fast=True)]
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _one_of_both(cls, models: list[str] | None, info: ValidationInfo) -> list[str] | None:
        """Check it with the fields, not after them, so that one answer names all that are missing."""
        if "model" not in info.data or (info.data["model"] is None) != (models is None):
            return models
        if models is None:
            raise PydanticCustomError("missing", "Field required", {"field": "model"})
        raise ValueError("the body has model as well; give either one reference or a list of them")


class Usage(BaseModel):
    """Tokens computed, special tokens included."""

    prompt_tokens: int


class Timings(BaseModel):
    """The times of an answer's steps, in milliseconds.

    `load_ms`: until the adapter was in host memory; `tokenize_ms`; `queue_ms`: waiting, for the tokeniser and for
    the first batch; `inference_ms`: from the first batch to the last output; `total_ms`: from arrival to answer.
    """

    load_ms: float
    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float


class Prediction(BaseModel):
    """One reference's answer; `predictions[i]` is what transformers' pipeline gives for input i."""

    model: str
    version: int | None
    digest: str
    task: str
    predictions: list[Any]
    usage: Usage
    timings: Timings


class FailedPrediction(BaseModel):
    """One reference of a fan-out that has no answer; the others have theirs."""

    model: str
    error: ErrorDetail


class Predictions(BaseModel):
    """A fan-out's answers, in the order of `models`."""

    results: list[Prediction | FailedPrediction]


@router.post("/v1/predict", response_model=Prediction | Predictions)
async def predict(body: PredictBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Predict under one adapter (`model`) or the same inputs under many (`models`)."""
    foundations = server_of(request).foundations
    given = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    inputs = [_input(x) for x in given]
    options = options_of(body, request, within)
    models = [body.model] if body.model is not None else body.models or []
    call = foundations.predict_many(models, inputs, body.parameters, body.task, options)
    outcomes = await while_connected(request, call)
    for outcome in outcomes:
        if isinstance(outcome, WrongTask):
            outcome.param = "task"
    if body.models is not None:
        return _json(Predictions.model_construct(results=_results(models, outcomes)))
    if isinstance(outcomes[0], Exception):
        raise outcomes[0]
    return _json(_shown(outcomes[0], models[0]))


class ClientLeft(Exception):
    """The client closed the connection before its answer was there."""


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of `work`.

    When the client leaves, cancel it and raise ClientLeft: nobody reads the answer.
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


def _input(given: str | TextPair | QuestionContext) -> Input:
    if isinstance(given, str):
        return given
    if isinstance(given, TextPair):
        return given.text if given.text_pair is None else (given.text, given.text_pair)
    return Question(given.question, given.context)


def _results(
    models: Sequence[str], outcomes: Sequence[Answer | Exception]
) -> list[Prediction | FailedPrediction]:
    """Return the results in order, and report one reference's failure in its place."""
    return [
        _shown(outcome, model)
        if isinstance(outcome, Answer)
        else FailedPrediction(model=model, error=fault_detail("/v1/predict", outcome)[1])
        for model, outcome in zip(models, outcomes, strict=True)
    ]


def _shown(answer: Answer, model: str) -> Prediction:
    return Prediction.model_construct(
        model=model,
        version=answer.resolved.version,
        digest=answer.resolved.digest,
        task=answer.task,
        predictions=answer.predictions,
        usage=usage_of(answer),
        timings=timings_of(answer),
    )


def usage_of(answer: Answer) -> Usage:
    """Return how many tokens an answer took."""
    return Usage.model_construct(prompt_tokens=answer.prompt_tokens)


def timings_of(answer: Answer) -> Timings:
    """Return how much time an answer took."""
    return Timings.model_construct(
        load_ms=answer.load_ms,
        tokenize_ms=answer.tokenize_ms,
        queue_ms=answer.queue_ms,
        inference_ms=answer.inference_ms,
        total_ms=answer.total_ms,
    )


def _json(model: BaseModel) -> Response:
    """Write the answer once, by pydantic, so that the framework does not check and encode it again."""
    return Response(model.model_dump_json(), media_type="application/json")
