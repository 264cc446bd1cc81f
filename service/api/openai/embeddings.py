"""The route POST /v1/embeddings, in the form of OpenAI's API."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.errors import spell
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import Strings, TruncationFields, while_connected
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import EngineError, InvalidParameter
from rootstock.service.engine.core.request import RequestOptions

router = APIRouter(route_class=BodyRoute)


class EmbeddingsBody(TruncationFields):
    """The body of an embedding. `input` is a text or a list of texts.

    With `dimensions`, vectors keep that many leading numbers and are normalised again.
    """

    model: StrictStr
    input: StrictStr | Strings
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


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
    """The vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


@router.post("/v1/embeddings")
async def embeddings(body: EmbeddingsBody, request: Request, within: TimeoutHeader = None) -> Embeddings:
    """Embed texts with the foundation or a feature-extraction adapter."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    options = options_of(body, request, within)
    try:
        answer = await embed(request, body.model, texts, body.truncation_parameters, options)
    except EngineError as error:
        raise spell(error, "input") from None
    vectors = vectors_of(answer)
    if body.dimensions is not None:
        vectors = shorten(vectors, body.dimensions, "dimensions")
    return Embeddings(
        data=[Embedding(index=i, embedding=encode(v, body.encoding_format)) for i, v in enumerate(vectors)],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=answer.prompt_tokens, total_tokens=answer.prompt_tokens),
    )


async def embed(
    request: Request, model: str, texts: Sequence[str], truncation: Mapping[str, Any], options: RequestOptions
) -> Answer:
    """Return the vectors of texts as an answer of feature-extraction. Raise EngineError as the engine does."""
    foundations = server_of(request).foundations
    call = foundations.predict(model, texts, truncation, task="feature-extraction", options=options)
    return await while_connected(request, call)


def vectors_of(answer: Answer) -> np.ndarray:
    """Return the vectors of an answer, (texts, dimensions) in fp32."""
    return np.asarray(answer.predictions, dtype=np.float32)


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
