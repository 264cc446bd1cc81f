"""Routes in the form of text-embeddings-inference (TEI 1.7): vectors, classes and similarity of texts.

TEI serves one model and has no field for it. Here the path or `?model=` names it; see reference.py. The routes
/rerank and /tokenize are in shared_paths.py, because other APIs have them too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, PlainValidator, StrictBool, StrictStr
from pydantic_core import to_json

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.reference import Reference
from rootstock.service.api.compat.texts import Texts
from rootstock.service.api.document.error_codes import raises
from rootstock.service.api.errors import spell
from rootstock.service.api.openai.embedded_texts import embed
from rootstock.service.api.openai.embeddings import normalised
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import Body, Strings, while_connected
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.errors import EngineError, WrongRoute
from rootstock.service.engine.encode.modalities.text import Input

router = APIRouter(route_class=BodyRoute)
# The field that truncates inputs, for messages.
TRUNCATE = "truncate"
_SIDES = {"left": "START", "right": "END"}


class TeiTruncation(Strict):
    """TEI's fields for inputs that are too long. Without `truncate` they are refused.

    Without a direction, the adapter decides which side is cut. This server has no named prompts.
    """

    truncate: StrictBool | None = None
    truncation_direction: Literal["Left", "Right", "left", "right"] | None = None
    prompt_name: None = None

    @property
    def truncation(self) -> dict[str, Any]:
        """Return the parameter of a task that truncates as the fields ask, if they do."""
        if not self.truncate:
            return {}
        direction = self.truncation_direction
        return {TRUNCATE: True if direction is None else _SIDES[direction.lower()]}


class TeiEmbedBody(TeiTruncation, Body):
    """The body of an embedding. With `normalize`, vectors have length 1; without it they are the model's own."""

    inputs: Texts
    normalize: StrictBool = True


class TeiInputs(NamedTuple):
    """Texts and pairs of texts, and whether the request sent them as a batch."""

    items: list[Input]
    batch: bool


# The forms of `inputs` beside one text, for the document.
_Pair = Annotated[list[str], Field(min_length=2, max_length=2)]
_Batch = Annotated[list[Annotated[list[str], Field(min_length=1, max_length=2)]], Field(min_length=1)]


def _read_inputs(value: Any) -> TeiInputs:
    if isinstance(value, str):
        return TeiInputs([value], False)
    if _is_texts(value, 2, 2):
        return TeiInputs([(value[0], value[1])], False)
    if isinstance(value, list) and value and all(_is_texts(item, 1, 2) for item in value):
        return TeiInputs([item[0] if len(item) == 1 else (item[0], item[1]) for item in value], True)
    raise ValueError(
        "expected a string, a pair as a list of two strings, or a batch as a list of lists of one or two strings"
    )


def _is_texts(value: Any, least: int, most: int) -> bool:
    return (
        isinstance(value, list) and least <= len(value) <= most and all(isinstance(text, str) for text in value)
    )


class TeiPredictBody(TeiTruncation, Body):
    """The body of a classification: a text, a pair of texts, or a batch. `raw_scores` asks for the logits."""

    inputs: Annotated[TeiInputs, PlainValidator(_read_inputs, json_schema_input_type=str | _Pair | _Batch)]
    raw_scores: StrictBool = False


class TeiClass(BaseModel):
    """A label and its score."""

    score: float
    label: str


class SentencePair(Strict):
    """A sentence, and those to compare with it."""

    source_sentence: StrictStr
    sentences: Strings


class SimilarityBody(Body):
    """The body of a comparison."""

    inputs: SentencePair
    parameters: TeiTruncation | None = None


@router.post("/embed", response_model=list[list[float]])
async def tei_embed(
    body: TeiEmbedBody, request: Request, reference: Reference, within: TimeoutHeader = None
) -> Response:
    """Embed texts with the foundation or a feature-extraction adapter; a single text too gives a list."""
    options = options_of(body, request, within)
    try:
        call = embed(server_of(request), reference, body.inputs, body.truncation, options)
        answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, "inputs", TRUNCATE) from None
    return _json((normalised(answer.vectors) if body.normalize else answer.vectors).tolist())


@router.post("/embed_all", openapi_extra=raises("wrong_task"))
async def tei_embed_all() -> Response:
    """Refuse the vectors of single tokens, which this server does not return."""
    raise WrongRoute("this server returns one pooled vector for each text, none for its tokens; use /embed")


@router.post("/predict", response_model=list[TeiClass] | list[list[TeiClass]])
async def tei_predict(
    body: TeiPredictBody, request: Request, reference: Reference, within: TimeoutHeader = None
) -> Response:
    """Classify texts with a text-classification adapter; every label comes back, the best first."""
    parameters = {"top_k": None, **body.truncation}
    if body.raw_scores:
        parameters["function_to_apply"] = "none"
    call = server_of(request).foundations.predict(
        reference,
        body.inputs.items,
        parameters,
        task="text-classification",
        options=options_of(body, request, within),
    )
    try:
        answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, "inputs", TRUNCATE) from None
    return _json(answer.predictions if body.inputs.batch else answer.predictions[0])


@router.post("/similarity", response_model=list[float])
async def tei_similarity(
    body: SimilarityBody, request: Request, reference: Reference, within: TimeoutHeader = None
) -> Response:
    """Return the cosine similarity of each sentence to the source sentence."""
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    truncation = body.parameters.truncation if body.parameters is not None else {}
    options = options_of(body, request, within)
    try:
        answer = await while_connected(request, embed(server_of(request), reference, texts, truncation, options))
    except EngineError as error:
        raise spell(error, "inputs", f"parameters.{TRUNCATE}") from None
    source, *others = normalised(answer.vectors)
    return _json((np.stack(others) @ source).tolist())


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")
