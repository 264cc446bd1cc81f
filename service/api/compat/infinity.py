"""Routes in the form of Infinity (infinity_emb 0.0.77): vectors, classes and the list of models.

`/rerank` is in shared_paths.py, because TEI has it too. Infinity truncates a text that is too long, and so do
these routes, unless `truncation` is false. Infinity's client sends the name `default/not-specified` if its caller
chose no model. Here it means the first foundation.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.texts import Texts
from rootstock.service.api.compat.truncation import DefaultTruncation
from rootstock.service.api.document.error_codes import raises
from rootstock.service.api.errors import spell
from rootstock.service.api.openai.embeddings import EmbeddingFields, EmbeddingUsage, embeddings_of
from rootstock.service.api.openai.models import Model, models
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import while_connected
from rootstock.service.api.rerank import RerankBody, rank
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.catalog import FOUNDATION
from rootstock.service.engine.core.errors import EngineError

router = APIRouter(route_class=BodyRoute)
_UNSPECIFIED = "default/not-specified"
# The names of Infinity's capabilities for the tasks that its routes serve.
_CAPABILITIES = {
    "feature-extraction": "embed",
    "image-feature-extraction": "image_embed",
    "audio-feature-extraction": "audio_embed",
    "text-classification": "classify",
    "text-ranking": "rerank",
}


def _named(model: str) -> str:
    return FOUNDATION if model == _UNSPECIFIED else model


InfinityModelName = Annotated[StrictStr, AfterValidator(_named)]


class InfinityEmbeddingsBody(DefaultTruncation, EmbeddingFields):
    """The body of an embedding. `dimensions` 0 asks for the whole vector."""

    model: InfinityModelName = FOUNDATION
    dimensions: Annotated[int, Field(ge=0)] | None = None

    @property
    def truncation_parameters(self) -> dict[str, Any]:
        """Return the truncation of texts. Images and recordings have none."""
        return super().truncation_parameters if self.items is None else {}


class InfinityRerankBody(DefaultTruncation, RerankBody):
    """The body of a ranking."""

    model: InfinityModelName = FOUNDATION


class InfinityClassifyBody(DefaultTruncation):
    """The body of a classification. `raw_scores` asks for the logits."""

    model: InfinityModelName = FOUNDATION
    input: Texts
    raw_scores: StrictBool = False


class InfinityParts(BaseModel):
    """The parts that all of Infinity's answers have: the model that was asked for, an id and the Unix seconds."""

    model: str
    usage: EmbeddingUsage
    id: str = Field(default_factory=lambda: f"infinity-{uuid.uuid4()}")
    created: int = Field(default_factory=lambda: int(time.time()))


class InfinityVectors(InfinityParts):
    """The vectors in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]


class InfinityRank(BaseModel):
    """One document: its score, its index in the request and, on request, its text."""

    relevance_score: float
    index: int
    document: str | None = None


class InfinityRanks(InfinityParts):
    """The ranked documents, best first."""

    object: Literal["rerank"] = "rerank"
    results: list[InfinityRank]


class InfinityClasses(InfinityParts):
    """The labels of each input with their scores, best first."""

    object: Literal["classify"] = "classify"
    data: list[list[dict[str, Any]]]


class InfinityModel(Model):
    """A model of /v1/models in Infinity's form. `stats` describes the queue of its foundation.

    infinity_client takes no other owner than Infinity.
    """

    owned_by: str = "infinity"
    backend: str
    capabilities: list[str]
    stats: dict[str, float]


class InfinityModels(BaseModel):
    """The foundations and all adapters."""

    object: Literal["list"] = "list"
    data: list[InfinityModel]


@router.post("/embeddings")
async def infinity_embeddings(
    body: InfinityEmbeddingsBody, request: Request, within: TimeoutHeader = None
) -> InfinityVectors:
    """Embed texts, images or recordings with a foundation or an adapter that gives vectors."""
    native = body.model_copy(update={"dimensions": body.dimensions or None})
    answer = await embeddings_of(native, body.model, request, within)
    return InfinityVectors(
        model=answer.model, usage=answer.usage, data=[vector.model_dump() for vector in answer.data]
    )


async def infinity_rerank(body: InfinityRerankBody, request: Request, within: float | None) -> InfinityRanks:
    """Rank documents for a query with a text-ranking adapter."""
    ranking = await rank(body, request, within)
    return InfinityRanks(
        model=ranking.model,
        usage=_usage(ranking.usage.prompt_tokens),
        results=[
            InfinityRank(
                relevance_score=one.relevance_score,
                index=one.index,
                document=None if one.document is None else one.document["text"],
            )
            for one in ranking.results
        ],
    )


async def infinity_classify(
    body: InfinityClassifyBody, request: Request, within: float | None
) -> InfinityClasses:
    """Classify texts with a text-classification adapter; every label comes back, the best first."""
    parameters = {"top_k": None, **body.truncation_parameters}
    if body.raw_scores:
        parameters["function_to_apply"] = "none"
    call = server_of(request).foundations.predict(
        body.model,
        body.input,
        parameters,
        task="text-classification",
        options=options_of(body, request, within),
    )
    try:
        answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, "input") from None
    return InfinityClasses(model=body.model, usage=_usage(answer.prompt_tokens), data=answer.predictions)


@router.get("/models", openapi_extra=raises("registry_unavailable"))
async def infinity_models(request: Request) -> InfinityModels:
    """List every model of /v1/models with what it can do here."""
    hosts = {host.name: host for host in server_of(request).foundations}
    first = server_of(request).foundations.first
    listed = []
    for model in (await models(request)).data:
        engine = hosts.get(model.parent or model.id, first).engine
        waiting, most = engine.admission.waiting()[0], engine.admission.capacity.items
        listed.append(
            InfinityModel(
                **model.model_dump(exclude={"owned_by"}),
                backend=engine.runner.name,
                capabilities=[_CAPABILITIES[task] for task in model.tasks if task in _CAPABILITIES],
                stats={"queue_fraction": waiting / most, "queue_absolute": waiting},
            )
        )
    return InfinityModels(data=listed)


def _usage(tokens: int) -> EmbeddingUsage:
    return EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
