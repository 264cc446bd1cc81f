"""The routes POST /models/{reference} and POST /, in the form of Hugging Face's inference API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Discriminator, Field, StrictBool, StrictStr, Tag
from pydantic_core import to_json

from rootstock.adapters.reference import FOUNDATION
from rootstock.adapters.spec import GENERATION, TEXT2TEXT_GENERATION
from rootstock.adapters.tasks import TASKS
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.hugging_face.hub_generation import REWRITES, generate_text
from rootstock.service.api.inputs import GivenInput, InputForm, QuestionContext, TextPair, form_of, read_inputs
from rootstock.service.api.media.media_content import media_bodies
from rootstock.service.api.media.media_input import AudioInput, ImageInput
from rootstock.service.api.media.media_route import MediaRoute
from rootstock.service.api.openai.chat import ChatBody, chat_completions
from rootstock.service.api.openai.chat_answer import ChatCompletion
from rootstock.service.api.openai.completions import Completion, CompletionBody, completions
from rootstock.service.api.openai.embedded_texts import embed
from rootstock.service.api.openai.embeddings import normalised, shorten
from rootstock.service.api.openai.event_stream import STREAMED
from rootstock.service.api.openai.sampling_fields import SamplingFields
from rootstock.service.api.options import TimeoutHeader, options_of, sticky_of
from rootstock.service.api.predict import (
    Body,
    Strings,
    predict_given,
    while_connected,
)
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import EngineError, InvalidInput, InvalidParameter, WrongTask
from rootstock.service.engine.core.request import RequestOptions

router = APIRouter(route_class=MediaRoute)
_text_router = APIRouter(route_class=BodyRoute)

EMBEDDING, SIMILARITY = "feature-extraction", "sentence-similarity"
# The parameters that a task has here unless the request sets them.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "text-classification": {"top_k": None},
    "token-classification": {"aggregation_strategy": "simple"},
}
_INDEX = re.compile(r"inputs\[(\d+)\]")


class SentencesToCompare(Strict):
    """A sentence, and those to compare with it."""

    source_sentence: StrictStr
    sentences: Strings


TextBody = TypeVar("TextBody", bound=SamplingFields)


def _hub_form(value: Any) -> str:
    """Return the tag of the form that the inputs seem to have, so that an error names that form."""
    if isinstance(value, list):
        return "a list"
    similar = isinstance(value, dict) and not {"source_sentence", "sentences"}.isdisjoint(value)
    return "a comparison" if similar else form_of(value)


HubInputs = Annotated[
    Annotated[StrictStr, Tag("a text")]
    | Annotated[TextPair, Tag("a pair")]
    | Annotated[QuestionContext, Tag("a question")]
    | Annotated[ImageInput, Tag("an image")]
    | Annotated[AudioInput, Tag("an audio")]
    | Annotated[SentencesToCompare, Tag("a comparison")]
    | Annotated[list[InputForm], Field(min_length=1, fail_fast=True), Tag("a list")],
    Discriminator(_hub_form),
]


class HubBody(Body):
    """The body of a call: inputs, the parameters of their task, and options.

    For embeddings, `normalize`, `dimensions`, `truncate` and `truncation_direction` stand beside the inputs.
    `options` are those of the hub's own scheduler and have no effect. `model` counts on the path / alone. With
    `stream`, generated text comes as events.
    """

    inputs: HubInputs
    parameters: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    model: StrictStr | None = None
    stream: StrictBool = False
    normalize: StrictBool | None = None
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = None
    truncate: StrictBool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None

    def parameters_for(self, task: str) -> dict[str, Any]:
        """Return the parameters of a task. Raise InvalidParameter for another task's field."""
        if task != EMBEDDING:
            for field in ("normalize", "dimensions"):
                if getattr(self, field) is not None:
                    raise InvalidParameter(f"{field} concerns embeddings, and the model's task is {task}", field)
        parameters = {**_DEFAULTS.get(task, {}), **(self.parameters or {})}
        if self.truncate:
            parameters["truncate"] = "START" if (self.truncation_direction or "").lower() == "left" else "END"
        return parameters


@_text_router.post("/models/{name:path}/v1/chat/completions", response_model=ChatCompletion, responses=STREAMED)
async def chat_with_model(name: str, body: ChatBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Answer a chat with the model in the path. The one in the body does not count."""
    return await chat_completions(_under(name, body), request, within)


@_text_router.post("/models/{name:path}/v1/completions")
async def complete_with_model(
    name: str, body: CompletionBody, request: Request, within: TimeoutHeader = None
) -> Completion:
    """Continue a text with the model in the path. The one in the body does not count."""
    return await completions(_under(name, body), request, within)


def _under(name: str, body: TextBody) -> TextBody:
    """Return a body with the model of the path. Raise InvalidParameter for parts of a composition."""
    if body.adapters is not None:
        raise InvalidParameter(
            "the path names the model, and adapters name another; send them to /v1/chat/completions or "
            "/v1/completions",
            "adapters",
        )
    return body.model_copy(update={"model": name})


# Its paths come before those of any other reference.
router.include_router(_text_router)


@router.post("/models/{name:path}/pipeline/{task}", responses=STREAMED, openapi_extra=media_bodies("parameters"))
async def run_task(
    name: str, task: str, body: HubBody, request: Request, within: TimeoutHeader = None
) -> Response:
    """Answer as `POST /models/{reference}`, for one of the tasks of a model that has several."""
    return await _run(name, body, task, request, within)


@router.post("/models/{name:path}", responses=STREAMED, openapi_extra=media_bodies("parameters"))
async def run_model(name: str, body: HubBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Answer as the pipeline of the model's task does, in the form of Hugging Face's inference API."""
    return await _run(name, body, None, request, within)


@router.post("/", responses=STREAMED, openapi_extra=media_bodies("model", "parameters"))
async def run_default(body: HubBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Answer as `POST /models/{reference}`, for `model` in the body, or else for the first foundation."""
    return await _run(FOUNDATION if body.model is None else body.model, body, None, request, within)


async def _run(name: str, body: HubBody, task: str | None, request: Request, within: float | None) -> Response:
    server = server_of(request)
    host, adapter = await while_connected(request, server.foundations.adapter(name, sticky_of(request)))
    own = host.spec.own_tasks[0] if adapter is None else adapter.task
    kind = task or own
    if isinstance(body.inputs, SentencesToCompare):
        kind = EMBEDDING if task in (None, SIMILARITY) else kind
    elif task == SIMILARITY:
        raise InvalidInput(f"{SIMILARITY} takes an object {{source_sentence, sentences}} as inputs", "inputs")
    if kind in REWRITES and own != TEXT2TEXT_GENERATION:
        raise WrongTask(name, own, TEXT2TEXT_GENERATION)
    if kind in GENERATION or (kind in REWRITES and not body.stream):
        if not isinstance(body.inputs, str):
            raise InvalidInput(f"{kind} takes one string as inputs; send one request for each prompt", "inputs")
        parameters = body.parameters or {}
        return await generate_text(name, kind, body.inputs, parameters, body.stream, body, request, within)
    if body.stream:
        raise InvalidParameter(f"only generated text can be streamed, and the model's task is {kind}", "stream")
    options = options_of(body, request, within)
    if kind == EMBEDDING:
        answer = await while_connected(request, _embedded(name, body, request, options))
    else:
        answer = await while_connected(request, _predicted(name, body, kind, request, options))
    return Response(to_json(answer), media_type="application/json")


async def _predicted(name: str, body: HubBody, task: str, request: Request, options: RequestOptions) -> Any:
    if isinstance(body.inputs, SentencesToCompare):
        raise InvalidInput(f"{task} does not compare sentences; send texts as inputs", "inputs")
    given = _files(task, body.inputs if isinstance(body.inputs, list) else [body.inputs])
    answer = await predict_given(request, name, given, body.parameters_for(task), task, options)
    predictions = answer.predictions
    if task == "zero-shot-classification":
        predictions = [_by_label(prediction) for prediction in predictions]
    # For text-classification the API has a list in a list, also for one text.
    if isinstance(body.inputs, list) or task == "text-classification":
        return predictions
    return predictions[0]


def _files(task: str, given: Sequence[GivenInput]) -> Sequence[GivenInput]:
    """Return the inputs. For a task of images or recordings, a string is the base64 or the URL of one."""
    modality = next((spec.modality for spec in TASKS if spec.name == task), "text")
    if modality == "text":
        return given
    form = ImageInput if modality == "image" else AudioInput
    return [form(**{modality: value}) if isinstance(value, str) else value for value in given]


def _by_label(prediction: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    pairs = zip(prediction["labels"], prediction["scores"], strict=True)
    return [{"label": label, "score": score} for label, score in pairs]


async def _embedded(name: str, body: HubBody, request: Request, options: RequestOptions) -> Any:
    compared = body.inputs if isinstance(body.inputs, SentencesToCompare) else None
    given = body.inputs if isinstance(body.inputs, list) else [body.inputs]
    texts = given if compared is None else [compared.source_sentence, *compared.sentences]
    single = [one for one in texts if isinstance(one, str | ImageInput | AudioInput)]
    if len(single) < len(texts):
        raise InvalidInput(f"{EMBEDDING} takes a string or a list of strings as inputs", "inputs")
    try:
        inputs = await read_inputs(request, single)
        answer = await embed(server_of(request), name, inputs, body.parameters_for(EMBEDDING), options)
    except EngineError as error:
        if compared is not None and error.param is not None:
            error.param = _INDEX.sub(_compared_field, error.param)
        raise
    vectors = answer.vectors
    if body.dimensions is not None:
        vectors = shorten(vectors, body.dimensions, "dimensions")
    if compared is not None:
        vectors = normalised(vectors)
        similarities: list[float] = (vectors[1:] @ vectors[0]).tolist()
        return similarities
    if body.normalize:
        vectors = normalised(vectors)
    return vectors.tolist() if isinstance(body.inputs, list) else vectors[0].tolist()


def _compared_field(match: re.Match[str]) -> str:
    """Return the name of the field that holds one of the texts to compare."""
    return "inputs.source_sentence" if match[1] == "0" else f"inputs.sentences[{int(match[1]) - 1}]"
