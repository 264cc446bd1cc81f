"""The route POST /v1/embeddings, in the form of OpenAI's API."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.errors import spell
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import Strings, TruncationFields, while_connected
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.errors import EngineError, InvalidParameter

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
    foundations = server_of(request).foundations
    options = options_of(body, request, within)
    call = foundations.predict(
        body.model, texts, body.truncation_parameters, task="feature-extraction", options=options
    )
    try:
        answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, "input") from None
    vectors = np.asarray(answer.predictions, dtype=np.float32)
    if body.dimensions is not None:
        vectors = _shorten(vectors, body.dimensions)
    return Embeddings(
        data=[Embedding(index=i, embedding=_encode(v, body.encoding_format)) for i, v in enumerate(vectors)],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=answer.prompt_tokens, total_tokens=answer.prompt_tokens),
    )


def _shorten(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    if dimensions > vectors.shape[1]:
        raise InvalidParameter(
            f"dimensions is {dimensions}; the vectors have {vectors.shape[1]}; ask for at most that", "dimensions"
        )
    shorter = vectors[:, :dimensions]
    return np.asarray(shorter / np.maximum(np.linalg.norm(shorter, axis=1, keepdims=True), 1e-12), np.float32)


def _encode(vector: np.ndarray, encoding: str) -> list[float] | str:
    if encoding == "float":
        numbers: list[float] = vector.tolist()
        return numbers
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
