"""The route POST /v1/embeddings, in the form of OpenAI's API."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictInt, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.jina import JinaFields
from rootstock.service.api.composed_fields import AnsweredParts, ComposedFields, asked_of, name_of, parts_of
from rootstock.service.api.errors import spell
from rootstock.service.api.inputs import Input
from rootstock.service.api.media.embedded_item import ItemModality, Items, TextItem, items_of, read_items
from rootstock.service.api.media.media_input import AudioInput, ImageInput
from rootstock.service.api.openai.embedded_texts import embed, read_texts
from rootstock.service.api.options import TimeoutHeader, options_of, sticky_of
from rootstock.service.api.predict import Strings, TruncationFields, while_connected
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.errors import EngineError, InvalidParameter
from rootstock.service.references.composed_model import Asked

router = APIRouter(route_class=BodyRoute)
TokenIds = Annotated[list[StrictInt], Field(min_length=1, fail_fast=True)]


class EmbeddingFields(TruncationFields, JinaFields):
    """The input of an embedding and the form of its vectors. `input` is a text, its tokens, or a list of either.

    It may also be Jina's list of `{text}`, `{image}` or `{audio}`. With Infinity's `modality`, strings are images
    or recordings: data URLs, base64 or addresses. With `dimensions`, vectors keep that many leading numbers and
    are normalised again.
    """

    input: StrictStr | Strings | TokenIds | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)] | Items
    modality: ItemModality = "text"
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None

    @property
    def items(self) -> Sequence[TextItem | ImageInput | AudioInput] | None:
        """Return the items of an input that is no text and no list of texts or tokens, else None."""
        given: Any = self.input
        if not isinstance(given, str) and isinstance(given[0], TextItem | ImageInput | AudioInput):
            items: Sequence[TextItem | ImageInput | AudioInput] = given
            return items
        if self.modality == "text":
            return None
        return items_of([given] if isinstance(given, str) else given, self.modality)


class EmbeddingsBody(EmbeddingFields, ComposedFields):
    """The body of an embedding: a model or the parts of one, the input, and the form of the vectors."""


class Embedding(BaseModel):
    """One vector: a list of numbers, or the base64 of its little-endian fp32 bytes, by `encoding_format`."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """The number of tokens that were computed, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """The vectors in the order of the inputs. `version` and `digest` are those that the reference meant."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    version: int | None
    digest: str
    adapters: AnsweredParts = None
    usage: EmbeddingUsage


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingsBody, request: Request, within: TimeoutHeader = None) -> Embeddings:
    """Embed texts, images or recordings with a foundation or an adapter that gives vectors."""
    return await embeddings_of(body, asked_of(body, request), request, within)


async def embeddings_of(
    body: EmbeddingFields, asked: Asked, request: Request, within: float | None
) -> Embeddings:
    """Return the answer of a model to a body of embeddings."""
    server = server_of(request)
    encoding = _encoding(body)
    options = options_of(body, request, within)
    try:
        inputs = await while_connected(request, _inputs(body, asked, request))
        call = embed(server, asked, inputs, body.truncation_parameters, options)
        answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, "input") from None
    vectors = answer.vectors
    if body.dimensions is not None:
        vectors = shorten(vectors, body.dimensions, "dimensions")
    elif body.normalized:
        vectors = normalised(vectors)
    return Embeddings(
        data=[Embedding(index=i, embedding=encode(v, encoding)) for i, v in enumerate(vectors)],
        model=name_of(asked),
        version=answer.resolved.version,
        digest=answer.resolved.digest,
        adapters=parts_of(answer.resolved),
        usage=EmbeddingUsage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
    )


async def _inputs(body: EmbeddingFields, asked: Asked, request: Request) -> Sequence[Input]:
    """Return the engine's inputs: the texts, images or recordings of the body."""
    items = body.items
    if items is not None:
        return await read_items(request, items)
    given: Any = body.input
    return await read_texts(server_of(request), asked, given, sticky_of(request))


def _encoding(body: EmbeddingFields) -> str:
    """Return the form of the vectors. Raise InvalidParameter for fields that contradict each other."""
    if body.dimensions is not None and body.normalized is False:
        raise InvalidParameter(
            "normalized is false, and vectors that dimensions shortens are normalised; leave one of them out",
            "normalized",
        )
    forms = {form for form in (body.encoding_format, body.embedding_type) if form is not None}
    if len(forms) > 1:
        raise InvalidParameter(
            f"embedding_type is {body.embedding_type} and encoding_format is {body.encoding_format}; send one of "
            "the two",
            "embedding_type",
        )
    return forms.pop() if forms else "float"


def shorten(vectors: np.ndarray, dimensions: int, field: str) -> np.ndarray:
    """Return the leading numbers of vectors, normalised again.

    Raise InvalidParameter, which names `field`, for more numbers than the vectors have.
    """
    if dimensions > vectors.shape[1]:
        raise InvalidParameter(
            f"{field} is {dimensions}; the vectors have {vectors.shape[1]}; ask for at most that", field
        )
    return normalised(vectors[:, :dimensions])


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return vectors divided by their L2 norms. A vector of zeros stays as it is."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)


def encode(vector: np.ndarray, encoding: str) -> list[float] | str:
    """Return a vector as a list of numbers ("float"), or as the base64 of its fp32 bytes ("base64")."""
    if encoding == "float":
        numbers: list[float] = vector.tolist()
        return numbers
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
