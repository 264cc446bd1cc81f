"""POST /v1/rerank: documents in the order in which they answer a query."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.errors import spell
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import (
    Strings,
    Timings,
    TruncationFields,
    Usage,
    timings_of,
    usage_of,
    while_connected,
)
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.errors import EngineError

router = APIRouter(route_class=BodyRoute)


class RerankBody(TruncationFields):
    """`top_n`: the best so many, all if absent. `raw_scores`: the model's logits, not their sigmoid."""

    model: StrictStr
    query: StrictStr
    documents: Strings
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    raw_scores: bool = False


class RankedDocument(BaseModel):
    """One document: its place in the request and how well it answers."""

    index: int
    relevance_score: float
    document: str | None = None


class Ranking(BaseModel):
    """The documents, best first; of equal scores in the order of the request."""

    model: str
    version: int | None
    digest: str
    results: list[RankedDocument]
    usage: Usage
    timings: Timings


@router.post("/v1/rerank", response_model=Ranking)
async def rerank(body: RerankBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Rank documents by a query with a text-ranking adapter."""
    pairs = [(body.query, document) for document in body.documents]
    parameters = {"function_to_apply": "none" if body.raw_scores else "sigmoid", **body.truncation_parameters}
    options = options_of(body, request, within)
    call = server_of(request).foundations.predict(
        body.model, pairs, parameters, task="text-ranking", options=options
    )
    try:
        answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, "documents") from None
    scores = [prediction["score"] for prediction in answer.predictions]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    documents = body.documents if body.return_documents else None
    results = [
        RankedDocument(
            index=i, relevance_score=scores[i], **({} if documents is None else {"document": documents[i]})
        )
        for i in order
    ]
    ranking = Ranking(
        model=body.model,
        version=answer.resolved.version,
        digest=answer.resolved.digest,
        results=results,
        usage=usage_of(answer),
        timings=timings_of(answer),
    )
    return Response(ranking.model_dump_json(exclude_unset=True), media_type="application/json")
