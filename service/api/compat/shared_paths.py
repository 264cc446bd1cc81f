"""The routes on paths that two APIs share. The keys of the body tell the two apart."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Discriminator, Field, StrictBool, StrictStr, Tag
from pydantic_core import to_json

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.infinity import (
    InfinityClasses,
    InfinityClassifyBody,
    InfinityRanks,
    InfinityRerankBody,
    infinity_classify,
    infinity_rerank,
)
from rootstock.service.api.compat.reference import Reference
from rootstock.service.api.compat.tei import TRUNCATE, TeiTruncation
from rootstock.service.api.compat.tei_tokens import TeiToken, TeiTokenizeBody, tei_tokenize
from rootstock.service.api.compat.vllm import Classifications, VllmClassifyBody, vllm_classify
from rootstock.service.api.options import TimeoutHeader
from rootstock.service.api.predict import Body, Strings
from rootstock.service.api.rerank import RerankBody, rank
from rootstock.service.api.tokenize import TokenizeBody, Tokens, tokenize

router = APIRouter(route_class=BodyRoute)


class TeiRerankBody(TeiTruncation, Body):
    """The body of a ranking in TEI's form. litellm adds `top_n`, the number of texts to return."""

    query: StrictStr
    texts: Strings
    raw_scores: StrictBool = False
    return_text: StrictBool = False
    top_n: Annotated[int, Field(ge=1)] | None = None


class TeiRank(BaseModel):
    """One text: its index in the request, its score and, on request, the text."""

    index: int
    score: float
    text: str | None = None


def _rerank_form(value: Any) -> str:
    return "tei" if isinstance(value, dict) and "texts" in value else "infinity"


def _tokenize_form(value: Any) -> str:
    return "tei" if isinstance(value, dict) and "inputs" in value else "vllm"


def _classify_form(value: Any) -> str:
    # infinity_client always sends `raw_scores`, which vLLM does not know.
    return "infinity" if isinstance(value, dict) and ("raw_scores" in value or "model" not in value) else "vllm"


ClassifyForms = Annotated[
    Annotated[InfinityClassifyBody, Tag("infinity")] | Annotated[VllmClassifyBody, Tag("vllm")],
    Discriminator(_classify_form),
]
RerankForms = Annotated[
    Annotated[InfinityRerankBody, Tag("infinity")] | Annotated[TeiRerankBody, Tag("tei")],
    Discriminator(_rerank_form),
]
TokenizeForms = Annotated[
    Annotated[TokenizeBody, Tag("vllm")] | Annotated[TeiTokenizeBody, Tag("tei")], Discriminator(_tokenize_form)
]


@router.post("/rerank", response_model=InfinityRanks | list[TeiRank])
async def rerank_by_form(
    body: RerankForms, request: Request, reference: Reference, within: TimeoutHeader = None
) -> Response:
    """Rank texts for a query: in TEI's form a body with `texts`, in Infinity's one with `documents`."""
    if isinstance(body, TeiRerankBody):
        return _json(await _tei_rerank(body, request, reference, within))
    if "model" not in body.model_fields_set:
        body.model = reference
    return _json(await infinity_rerank(body, request, within))


@router.post("/classify")
async def classify_by_form(
    body: ClassifyForms, request: Request, reference: Reference, within: TimeoutHeader = None
) -> InfinityClasses | Classifications:
    """Classify texts: in Infinity's form a body with `raw_scores` or without a model, else in vLLM's."""
    if isinstance(body, VllmClassifyBody):
        return await vllm_classify(body, request, within)
    if "model" not in body.model_fields_set:
        body.model = reference
    return await infinity_classify(body, request, within)


@router.post("/tokenize")
async def tokenize_by_form(
    body: TokenizeForms, request: Request, reference: Reference
) -> Tokens | list[list[TeiToken]]:
    """Return the tokens of texts: in TEI's form for a body with `inputs`, else in vLLM's."""
    if isinstance(body, TeiTokenizeBody):
        return await tei_tokenize(body, request, reference)
    return await tokenize(body, request)


async def _tei_rerank(
    body: TeiRerankBody, request: Request, reference: str, within: float | None
) -> list[dict[str, Any]]:
    native = RerankBody.model_construct(
        model=reference,
        query=body.query,
        documents=[{"text": text} for text in body.texts],
        top_n=body.top_n,
        return_documents=body.return_text,
        raw_scores=body.raw_scores,
        priority=body.priority,
        timeout=body.timeout,
        **body.truncation,
    )
    ranking = await rank(native, request, within, "texts", TRUNCATE)
    return [{"index": one.index, "score": one.relevance_score, **(one.document or {})} for one in ranking.results]


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")
