"""POST /v1/predict: inputs under one adapter, or the same inputs under many."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Annotated, Any, Self, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StrictStr, model_validator

from service.api.errors import ErrorDetail, error_detail
from service.api.server import server_of
from service.engine.engine import Answer, Engine
from service.engine.errors import TooLarge
from service.engine.tokenizer import Input

router = APIRouter()
Result = TypeVar("Result")


class TextPair(BaseModel):
    """Two texts that one prediction is about."""

    model_config = ConfigDict(extra="forbid")
    text: StrictStr
    text_pair: StrictStr


Text = StrictStr | TextPair


class Body(BaseModel):
    """A JSON body: unknown keys are refused, and so is text that UTF-8 cannot hold."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("the body holds half a surrogate pair, which is no text") from None
        return value


class PredictBody(Body):
    """One of `model` and `models`, and the inputs: one, or a list."""

    model: Annotated[StrictStr, Field(examples=["review-sentiment"])] | None = None
    models: Annotated[list[StrictStr], Field(min_length=1)] | None = None
    inputs: Text | Annotated[list[Text], Field(min_length=1)]
    parameters: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.model is None) == (self.models is None):
            raise ValueError("give either model (one reference) or models (a list of them)")
        return self


class Usage(BaseModel):
    """Tokens computed, special tokens included."""

    prompt_tokens: int


class Timings(BaseModel):
    """Milliseconds from admission to the first batch, and from there to the last output."""

    queue_ms: float
    inference_ms: float


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
async def predict(body: PredictBody, request: Request) -> Response:
    """Predict under one adapter (`model`) or the same inputs under many (`models`)."""
    engine = server_of(request).engine
    given = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    inputs: list[Input] = [x if isinstance(x, str) else (x.text, x.text_pair) for x in given]
    if body.model is not None:
        answer = await while_connected(request, engine.predict(body.model, inputs, body.parameters))
        return _json(_shown(answer, body.model))
    models = body.models or []
    if len(inputs) * len(models) > engine.limits.max_inputs:
        raise TooLarge(
            f"{len(inputs)} inputs under {len(models)} models; at most {engine.limits.max_inputs} together",
            "models",
        )
    calls = asyncio.gather(*(_one_of_many(engine, m, inputs, body.parameters) for m in models))
    return _json(Predictions(results=await while_connected(request, calls)))


class ClientLeft(Exception):
    """The client closed the connection before its answer was there."""


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """The result of `work`; when the client leaves it is cancelled, since nobody reads its answer: ClientLeft."""
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


async def _one_of_many(
    engine: Engine, model: str, inputs: list[Input], parameters: dict[str, Any]
) -> Prediction | FailedPrediction:
    try:
        return _shown(await engine.predict(model, inputs, parameters), model)
    except Exception as error:  # one reference's failure is its own: it is reported in its place
        return FailedPrediction(model=model, error=error_detail(error)[1])


def _shown(answer: Answer, model: str) -> Prediction:
    return Prediction.model_construct(
        model=model,
        version=answer.resolved.version,
        digest=answer.resolved.digest,
        task=answer.task,
        predictions=answer.predictions,
        usage=Usage.model_construct(prompt_tokens=answer.prompt_tokens),
        timings=Timings.model_construct(queue_ms=answer.queue_ms, inference_ms=answer.inference_ms),
    )


def _json(model: BaseModel) -> Response:
    """Written once by pydantic, not checked and encoded again by the framework."""
    return Response(model.model_dump_json(), media_type="application/json")
