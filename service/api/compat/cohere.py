"""Routes in the form of Cohere's API: vectors in versions 1 and 2, rankings in version 2.

The native /v1/rerank has the form of Cohere's version 1. Cohere truncates a text that is too long, and so do
these routes, unless the request asks for an error.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError, to_json

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.truncation import DefaultTruncation
from rootstock.service.api.errors import spell
from rootstock.service.api.openai.embedded_texts import EmbeddedTexts, embed
from rootstock.service.api.openai.embeddings import encode, shorten
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import Body, Strings, while_connected
from rootstock.service.api.rerank import Ranking, RerankBody, as_json, rank
from rootstock.service.api.server import server_of
from rootstock.service.api.strict import Strict, one_of
from rootstock.service.engine.core.catalog import FOUNDATION
from rootstock.service.engine.core.errors import EngineError

router = APIRouter(route_class=BodyRoute)
Encodings = Annotated[list[Literal["float", "base64"]], Field(min_length=1, max_length=2)]


class CohereRerankBody(DefaultTruncation, RerankBody):
    """The body of a ranking."""

    model: StrictStr = FOUNDATION


class CohereEmbedFields(Body):
    """The fields that both versions have.

    The vectors do not depend on `input_type`, because a bundle states its prefix itself. `truncate` says which
    end of a text that is too long is cut; NONE refuses the text.
    """

    model: StrictStr = FOUNDATION
    input_type: Literal["search_document", "search_query", "classification", "clustering"] | None = None
    truncate: Literal["NONE", "START", "END"] = "END"


class CohereEmbedBody(CohereEmbedFields):
    """The body of an embedding in version 1. `embedding_types` chooses the forms of the vectors."""

    texts: Strings
    embedding_types: Encodings | None = None


class EmbedContent(Strict):
    """A part of an input."""

    type: Literal["text"] = "text"
    text: StrictStr


class EmbedInput(Strict):
    """An input as parts, of which this server takes one."""

    content: Annotated[list[EmbedContent], Field(min_length=1, max_length=1)]


class CohereEmbedV2Body(CohereEmbedFields):
    """The body of an embedding in version 2, with `texts` or `inputs`.

    With `output_dimension`, vectors keep that many leading numbers and are normalised again.
    """

    model_config = ConfigDict(json_schema_extra=one_of(texts="array", inputs="array"))

    texts: Strings | None = None
    inputs: Annotated[list[EmbedInput], Field(min_length=1)] | None = Field(None, validate_default=True)
    embedding_types: Encodings = Field(["float"])
    output_dimension: Annotated[int, Field(ge=1)] | None = None

    @field_validator("inputs")
    @classmethod
    def _one_of_both(cls, inputs: list[EmbedInput] | None, info: ValidationInfo) -> list[EmbedInput] | None:
        """Check this among the fields, not after them, so that one answer names all missing fields."""
        if "texts" not in info.data or (info.data["texts"] is None) != (inputs is None):
            return inputs
        if inputs is None:
            raise PydanticCustomError("missing", "Field required", {"field": "texts"})
        raise ValueError("the body has both texts and inputs; send one of the two")


class ApiVersion(BaseModel):
    """The version of Cohere's API that an answer follows."""

    version: str


class BilledUnits(BaseModel):
    """The number of tokens that were computed, special tokens included."""

    input_tokens: int


class CohereMeta(BaseModel):
    """The part about the call that all of Cohere's answers have."""

    api_version: ApiVersion
    billed_units: BilledUnits


class CohereParts(BaseModel):
    """The id of an answer, its adapter's digest, and the part about the call."""

    id: str
    digest: str
    meta: CohereMeta


class CohereRanking(Ranking):
    """A ranking of /v1/rerank with the parts that Cohere's answers have."""

    id: str
    meta: CohereMeta


class FloatVectors(CohereParts):
    """The vectors in the order of the texts."""

    response_type: Literal["embeddings_floats"]
    embeddings: list[list[float]]
    texts: list[str]


class VectorsByType(CohereParts):
    """The vectors in the order of the texts, once for each of `embedding_types`."""

    response_type: Literal["embeddings_by_type"]
    embeddings: dict[str, list[list[float]] | list[str]]
    texts: list[str]


@router.post("/v2/rerank", response_model=CohereRanking)
async def cohere_rerank(body: CohereRerankBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Rank documents for a query with a text-ranking adapter."""
    ranking = await rank(body, request, within)
    return as_json(
        CohereRanking(
            **{name: getattr(ranking, name) for name in Ranking.model_fields},
            id=str(uuid.uuid4()),
            meta=_meta("2", ranking.usage.prompt_tokens),
        )
    )


@router.post("/v1/embed", response_model=FloatVectors | VectorsByType)
async def cohere_embed(body: CohereEmbedBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Embed texts with the foundation or a feature-extraction adapter."""
    answer = await _embedded(body, body.texts, "texts", request, within)
    vectors, forms = answer.vectors, body.embedding_types
    return _shown(answer, "1", body.texts, vectors.tolist() if forms is None else _by_type(vectors, forms))


@router.post("/v2/embed", response_model=VectorsByType)
async def cohere_embed_v2(body: CohereEmbedV2Body, request: Request, within: TimeoutHeader = None) -> Response:
    """Embed texts with the foundation or a feature-extraction adapter."""
    texts = body.texts or [one.content[0].text for one in body.inputs or ()]
    answer = await _embedded(body, texts, "inputs" if body.texts is None else "texts", request, within)
    vectors = answer.vectors
    if body.output_dimension is not None:
        vectors = shorten(vectors, body.output_dimension, "output_dimension")
    return _shown(answer, "2", texts, _by_type(vectors, body.embedding_types))


async def _embedded(
    body: CohereEmbedFields, texts: Sequence[str], field: str, request: Request, within: float | None
) -> EmbeddedTexts:
    """Return the vectors of texts. `field` is the field of the texts, for errors."""
    options = options_of(body, request, within)
    try:
        call = embed(server_of(request), body.model, texts, {"truncate": body.truncate}, options)
        return await while_connected(request, call)
    except EngineError as error:
        raise spell(error, field, None) from None


def _by_type(vectors: np.ndarray, forms: Sequence[str]) -> dict[str, Any]:
    return {form: [encode(vector, form) for vector in vectors] for form in forms}


def _shown(answer: EmbeddedTexts, api: str, texts: Sequence[str], embeddings: Any) -> Response:
    by_type = isinstance(embeddings, dict)
    shown = {
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
        "id": str(uuid.uuid4()),
        "digest": answer.resolved.digest,
        "embeddings": embeddings,
        "texts": texts,
        "meta": _meta(api, answer.tokens).model_dump(),
    }
    return Response(to_json(shown), media_type="application/json")


def _meta(api: str, tokens: int) -> CohereMeta:
    return CohereMeta(api_version=ApiVersion(version=api), billed_units=BilledUnits(input_tokens=tokens))
