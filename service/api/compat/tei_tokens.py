"""TEI's view of a model's tokenizer, and of the model itself: tokens, their text, and the route /info."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, PlainValidator, StrictBool

from rootstock.adapters.spec import Adapter
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.reference import Reference
from rootstock.service.api.compat.texts import Texts
from rootstock.service.api.document.error_codes import TEXT, raises
from rootstock.service.api.options import sticky_of
from rootstock.service.api.predict import while_connected
from rootstock.service.api.server import Server, server_of
from rootstock.service.api.strict import MAX_ITEMS, Strict
from rootstock.service.engine.core.errors import EngineError, TooLarge, WrongTask
from rootstock.service.engine.encode.modalities.text_input import check_characters
from rootstock.service.engine.encode.size import check_total
from rootstock.service.foundation_host import FoundationHost

router = APIRouter(route_class=BodyRoute)
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class TeiTokenizeBody(Strict):
    """The body of a tokenisation of one or several texts. This server has no named prompts."""

    inputs: Texts
    add_special_tokens: StrictBool = True
    prompt_name: None = None


class TeiToken(BaseModel):
    """A token: its id, its text and its characters in the input; a special token has none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def _read_ids(value: Any) -> list[list[int]]:
    rows = value if isinstance(value, list) and value and all(isinstance(row, list) for row in value) else [value]
    for row in rows:
        if not isinstance(row, list) or not all(type(i) is int for i in row):
            raise ValueError("expected a list of token ids, or a list of such lists")
    return rows


class TeiDecodeBody(Strict):
    """The body with the ids of tokens, of one or of several texts."""

    ids: Annotated[list[list[int]], PlainValidator(_read_ids, json_schema_input_type=list[int] | list[list[int]])]
    skip_special_tokens: StrictBool = True


class TeiInfo(BaseModel):
    """TEI's description of a model. `model_type` has one key: embedding, classifier or reranker."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


async def tei_tokenize(body: TeiTokenizeBody, request: Request, reference: str) -> list[list[TeiToken]]:
    """Return the tokens of texts with their places."""
    check_characters(body.inputs)
    check_total(sum(map(len, body.inputs)))
    host = server_of(request).foundations.directory.host(reference, sticky_of(request))
    return await while_connected(request, _tokenized(server_of(request), body, host))


@router.post("/decode")
async def tei_decode(body: TeiDecodeBody, request: Request, reference: Reference) -> list[str]:
    """Return the texts of tokens."""
    if (size := sum(map(len, body.ids))) > MAX_ITEMS:
        raise TooLarge(f"the request has {size} token ids; the limit is {MAX_ITEMS}; send fewer", "ids")
    host = server_of(request).foundations.directory.host(reference, sticky_of(request))
    try:
        return await while_connected(request, _decoded(server_of(request), body, host))
    except EngineError as error:
        error.param = "ids" if error.param == "tokens" else error.param
        raise


@router.get("/info", openapi_extra=raises(*TEXT, "wrong_task"))
async def tei_info(request: Request, reference: Reference) -> TeiInfo:
    """Describe a model that embeds, classifies or ranks."""
    host, adapter = await server_of(request).foundations.adapter(reference, sticky_of(request))
    engine = host.encoder
    task = "feature-extraction" if adapter is None else adapter.task
    kind = _kind(host, adapter)
    if kind is None or engine is None:
        served = host.spec.own_tasks[0] if adapter is None else task
        raise WrongTask(reference, served, "feature-extraction, text-classification or text-ranking")
    return TeiInfo(
        model_id=host.spec.name if adapter is None else reference,
        model_sha=host.spec.revision if adapter is None else adapter.digest,
        model_dtype=_DTYPES.get(engine.runner.precision, engine.runner.precision),
        model_type=kind,
        max_concurrent_requests=engine.admission.capacity.items,
        max_input_length=host.spec.embedding.max_tokens if adapter is None else adapter.preprocessing.max_length,
        max_batch_tokens=engine.admission.capacity.tokens,
        max_batch_requests=None,
        max_client_batch_size=engine.limits.max_inputs,
        auto_truncate=False,
        tokenization_workers=1,
        version=version("rootstock"),
        sha=None,
        docker_label=None,
    )


def _kind(host: FoundationHost, adapter: Adapter | None) -> dict[str, dict[str, Any]] | None:
    """Return TEI's type of a model, or None if TEI serves no such model."""
    if adapter is None:
        embeds = "feature-extraction" in host.spec.own_tasks
        return {"embedding": {"pooling": host.spec.embedding.pooling}} if embeds else None
    if adapter.task == "feature-extraction":
        return {"embedding": {"pooling": adapter.head.pooling}}
    name = {"text-ranking": "reranker", "text-classification": "classifier"}.get(adapter.task)
    if name is None:
        return None
    labels = list(enumerate(adapter.labels))
    return {
        name: {"id2label": {str(i): label for i, label in labels}, "label2id": {label: i for i, label in labels}}
    }


async def _tokenized(server: Server, body: TeiTokenizeBody, host: FoundationHost) -> list[list[TeiToken]]:
    def read() -> list[list[TeiToken]]:
        tokenizer = host.tokenizer()
        return [
            [TeiToken(**asdict(span)) for span in tokenizer.spans(text, body.add_special_tokens)]
            for text in body.inputs
        ]

    async with server.texts:
        return await asyncio.to_thread(read)


async def _decoded(server: Server, body: TeiDecodeBody, host: FoundationHost) -> list[str]:
    def read() -> list[str]:
        tokenizer = host.tokenizer()
        for row in body.ids:
            tokenizer.entries(row)
        return [tokenizer.decode(row, not body.skip_special_tokens) for row in body.ids]

    async with server.texts:
        return await asyncio.to_thread(read)
