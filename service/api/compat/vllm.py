"""vLLM's routes /classify, /pooling and /score. Its /tokenize and /detokenize are native routes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, StrictBool, StrictStr

from rootstock.service.api.body import BodyRoute
from rootstock.service.api.compat.served_model import ServedModel, find_model
from rootstock.service.api.errors import spell
from rootstock.service.api.openai.embeddings import EmbeddingsBody, embeddings
from rootstock.service.api.options import TimeoutHeader, options_of, sticky_of
from rootstock.service.api.predict import Strings, TruncationFields, while_connected
from rootstock.service.api.server import server_of
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import EngineError, InvalidInput
from rootstock.service.engine.encode.modalities.text import Input

router = APIRouter(route_class=BodyRoute)
_EMBEDDING, _CLASSIFICATION, _RANKING = "feature-extraction", "text-classification", "text-ranking"


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[Strings, BeforeValidator(_listed)]


class PooledBody(TruncationFields):
    """The fields that pooling, classification and scores share. Without `use_activation`, scores are logits."""

    model: StrictStr
    use_activation: StrictBool = True
    user: StrictStr | None = None


class VllmClassifyBody(PooledBody):
    """The body of a classification: a text or a list of texts."""

    input: StrictStr | Strings


class PoolingBody(VllmClassifyBody):
    """The body of a pooling. `task` is by default that of the model.

    `encoding_format` and `dimensions` concern embeddings alone.
    """

    task: Literal["embed", "classify"] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


class ScoreBody(PooledBody):
    """The body of a score: one text or N texts on the left, and N texts on the right.

    The two sides may also be called `queries` and `documents` (or `items`), or `data_1` and `data_2`.
    """

    text_1: Texts = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: Texts = Field(validation_alias=AliasChoices("text_2", "documents", "items", "data_2"))


class PoolingUsage(BaseModel):
    """The number of tokens that were computed, special tokens included."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: Literal[0] = 0


class Classification(BaseModel):
    """The best label of a text, and the probability of each label in the order of ids."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class PooledVector(BaseModel):
    """An embedding, or the probability of each label in the order of ids."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float] | str


class PairScore(BaseModel):
    """The score of one pair of texts."""

    index: int
    object: Literal["score"] = "score"
    score: float


class PooledAnswer(BaseModel):
    """The parts of vLLM's answers: an id, the creation in Unix seconds, the reference and the tokens."""

    id: str
    object: Literal["list"] = "list"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    usage: PoolingUsage


class Classifications(PooledAnswer):
    """The classes of the texts, in their order."""

    data: list[Classification]


class PooledVectors(PooledAnswer):
    """The vectors of the texts, in their order."""

    data: list[PooledVector]


class Scores(PooledAnswer):
    """The scores of the pairs, in their order."""

    data: list[PairScore]


async def vllm_classify(body: VllmClassifyBody, request: Request, within: float | None) -> Classifications:
    """Classify texts with a text-classification adapter."""
    answer, model = await _classified(body, request, within)
    data = [
        Classification(index=i, label=scored[0]["label"], probs=probs, num_classes=len(probs))
        for i, (scored, probs) in enumerate(zip(answer.predictions, probabilities(answer, model), strict=True))
    ]
    return Classifications(id=_id("classify"), model=body.model, data=data, usage=_usage(answer.prompt_tokens))


@router.post("/pooling")
async def pooling(body: PoolingBody, request: Request, within: TimeoutHeader = None) -> PooledVectors:
    """Embed texts, or return the probabilities of their labels, by the model's task or the one asked for."""
    task = body.task
    if task is None:
        model = await _model(request, body.model)
        task = "classify" if model.task == _CLASSIFICATION else "embed"
    if task == "embed":
        fields = body.model_dump(exclude={"task", "use_activation"}, exclude_unset=True)
        embedded = await embeddings(EmbeddingsBody(**fields), request, within)
        vectors: Sequence[Any] = [one.embedding for one in embedded.data]
        tokens = embedded.usage.prompt_tokens
    else:
        answer, model = await _classified(body, request, within)
        vectors, tokens = probabilities(answer, model), answer.prompt_tokens
    data = [PooledVector(index=i, data=vector) for i, vector in enumerate(vectors)]
    return PooledVectors(id=_id("pool"), model=body.model, data=data, usage=_usage(tokens))


@router.post("/score", name="score")
@router.post("/v1/score", name="score_v1")
async def score(body: ScoreBody, request: Request, within: TimeoutHeader = None) -> Scores:
    """Score pairs of texts: with a text-ranking adapter, or by the cosine of two embeddings."""
    left, right = body.text_1, body.text_2
    if len(left) not in (1, len(right)):
        raise InvalidInput(
            f"text_1 has {len(left)} texts and text_2 has {len(right)}; send one text as text_1, or as many as "
            "text_2 has",
            "text_1",
        )
    model = await _model(request, body.model)
    if _EMBEDDING in model.tasks:
        answer = await _predicted(
            body, model.reference, _EMBEDDING, [*left, *right], {}, request, within, "text_1"
        )
        values = _cosines(np.asarray(answer.predictions, np.float32), len(left))
    else:
        pairs = list(zip(left * (len(right) // len(left)), right, strict=True))
        function = {"function_to_apply": "sigmoid" if body.use_activation else "none"}
        answer = await _predicted(body, body.model, _RANKING, pairs, function, request, within, "text_2")
        values = [prediction["score"] for prediction in answer.predictions]
    data = [PairScore(index=i, score=value) for i, value in enumerate(values)]
    return Scores(id=_id("score"), model=body.model, data=data, usage=_usage(answer.prompt_tokens))


def probabilities(answer: Answer, model: ServedModel) -> list[list[float]]:
    """Return the score of each label, in the order of ids, from predictions with `top_k` null."""
    scored = [{one["label"]: one["score"] for one in prediction} for prediction in answer.predictions]
    return [[scores[label] for label in model.labels] for scores in scored]


async def _classified(
    body: VllmClassifyBody, request: Request, within: float | None
) -> tuple[Answer, ServedModel]:
    parameters: dict[str, Any] = {"top_k": None} | ({} if body.use_activation else {"function_to_apply": "none"})
    texts = _listed(body.input)
    answer = await _predicted(body, body.model, _CLASSIFICATION, texts, parameters, request, within, "input")
    pinned = server_of(request).foundations.directory.pinned(body.model, answer.resolved.digest)
    return answer, await _model(request, pinned)


async def _model(request: Request, reference: str) -> ServedModel:
    call = find_model(server_of(request).foundations, reference, sticky_of(request))
    return await while_connected(request, call)


async def _predicted(
    body: PooledBody,
    reference: str,
    task: str,
    inputs: Sequence[Input],
    parameters: dict[str, Any],
    request: Request,
    within: float | None,
    field: str,
) -> Answer:
    """Return the answer of the native route. Errors name the inputs by `field`."""
    options = options_of(body, request, within)
    call = server_of(request).foundations.predict(
        reference, inputs, {**parameters, **body.truncation_parameters}, task, options
    )
    try:
        return await while_connected(request, call)
    except EngineError as error:
        raise spell(error, field) from None


def _cosines(vectors: np.ndarray, left: int) -> list[float]:
    """Return the cosine of each right vector with its left one; the first `left` rows are the left ones."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-8)
    cosines: list[float] = (unit[:left] * unit[left:]).sum(axis=1).tolist()
    return cosines


def _id(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex}"


def _usage(tokens: int) -> PoolingUsage:
    return PoolingUsage(prompt_tokens=tokens, total_tokens=tokens)
