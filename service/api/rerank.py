"""The route POST /v1/rerank, which ranks documents by how well they answer a query."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, PlainValidator, StrictStr, WithJsonSchema

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.errors import spell
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import TruncationFields, timings_of, usage_of, while_connected
from rootstock.service.api.server import server_of
from rootstock.service.api.task_predictions import Timings, Usage
from rootstock.service.engine.core.errors import EngineError

router = APIRouter(route_class=BodyRoute)


def _read_document(value: Any) -> dict[str, Any]:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError("a document is a string, or an object whose `text` is a string")
    return value if isinstance(value, dict) else {"text": text}


# A document as an object. The model reads its `text`, and its other fields come back with it.
_TEXT = {"type": "string"}
_FORMS = {"anyOf": [_TEXT, {"type": "object", "required": ["text"], "properties": {"text": _TEXT}}]}
Document = Annotated[dict[str, Any], PlainValidator(_read_document), WithJsonSchema(_FORMS)]


class RerankBody(TruncationFields):
    """The body of a ranking. `top_n` is the number of documents to return, all if absent.

    With `raw_scores`, scores are the model's logits, not their sigmoid.
    """

    model: StrictStr
    query: StrictStr
    documents: Annotated[list[Document], Field(min_length=1, fail_fast=True)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    raw_scores: bool = False


class RankedDocument(BaseModel):
    """One document: its index in the request, its score and, on request, an object with its `text`."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class Ranking(BaseModel):
    """The ranked documents, best first; equal scores keep the order of the request."""

    model: str
    version: int | None
    digest: str
    results: list[RankedDocument]
    usage: Usage
    timings: Timings


@router.post("/v1/rerank", response_model=Ranking)
async def rerank(body: RerankBody, request: Request, within: TimeoutHeader = None) -> Response:
    """Rank documents for a query with a text-ranking adapter."""
    return as_json(await rank(body, request, within))


def as_json(ranking: BaseModel) -> Response:
    """Return a ranking as JSON, without the documents that the request did not ask for."""
    return Response(ranking.model_dump_json(exclude_unset=True), media_type="application/json")


async def rank(
    body: RerankBody,
    request: Request,
    within: float | None,
    documents: str = "documents",
    truncation: str = "truncation",
) -> Ranking:
    """Return the ranking that a body asks for.

    An error names the fields `documents` and `truncation` as the route calls them.
    """
    pairs = [(body.query, document["text"]) for document in body.documents]
    parameters = {"function_to_apply": "none" if body.raw_scores else "sigmoid", **body.truncation_parameters}
    options = options_of(body, request, within)
    call = server_of(request).foundations.predict(
        body.model, pairs, parameters, task="text-ranking", options=options
    )
    try:
        answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, documents, truncation) from None
    scores = [prediction["score"] for prediction in answer.predictions]
    order = sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n]
    results = [
        RankedDocument(
            index=i,
            relevance_score=scores[i],
            **({"document": body.documents[i]} if body.return_documents else {}),
        )
        for i in order
    ]
    return Ranking(
        model=body.model,
        version=answer.resolved.version,
        digest=answer.resolved.digest,
        results=results,
        usage=usage_of(answer),
        timings=timings_of(answer),
    )
