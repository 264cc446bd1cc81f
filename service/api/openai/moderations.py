"""The route POST /v1/moderations, in the form of OpenAI's API: a text-classification adapter moderates."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictStr

from rootstock.adapters.spec import Adapter
from rootstock.service.api.body import BodyRoute
from rootstock.service.api.errors import spell
from rootstock.service.api.options import TimeoutHeader, options_of
from rootstock.service.api.predict import Strings, TruncationFields, while_connected
from rootstock.service.api.server import Server, server_of
from rootstock.service.api.strict import Strict
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import EngineError, WrongTask
from rootstock.service.engine.core.request import RequestOptions

router = APIRouter(route_class=BodyRoute)

_TASK = "text-classification"
# A label that may apply beside others applies from this probability on.
THRESHOLD = 0.5


class ModeratedPart(Strict):
    """A text in OpenAI's form of an input with several parts."""

    type: Literal["text"]
    text: StrictStr


class ModerationsBody(TruncationFields):
    """The body of a moderation: texts, and the adapter that classifies them."""

    model: StrictStr
    input: StrictStr | Strings | Annotated[list[ModeratedPart], Field(min_length=1, fail_fast=True)]

    def texts(self) -> list[str]:
        """Return the texts of the input."""
        given = [self.input] if isinstance(self.input, str) else self.input
        return [part if isinstance(part, str) else part.text for part in given]


class Moderation(BaseModel):
    """The categories of one text. They are the adapter's labels, and the scores are its probabilities.

    With labels that may apply together, or one label, a category applies from a score of 0.5 on, and a text is
    flagged if any does. Otherwise the best label alone applies, and a text is flagged unless that is the first
    of the adapter's labels, which stands for harmless texts.
    """

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class Moderations(BaseModel):
    """The moderations of the texts in their order."""

    id: str
    model: str
    results: list[Moderation]


@router.post("/v1/moderations")
async def moderations(body: ModerationsBody, request: Request, within: TimeoutHeader = None) -> Moderations:
    """Moderate texts with a text-classification adapter."""
    options = options_of(body, request, within)
    call = _classified(server_of(request), body, options)
    try:
        adapter, answer = await while_connected(request, call)
    except EngineError as error:
        raise spell(error, "input") from None
    return Moderations(
        id=f"modr-{uuid.uuid4().hex}",
        model=body.model,
        results=[_moderation(prediction, adapter) for prediction in answer.predictions],
    )


async def _classified(server: Server, body: ModerationsBody, options: RequestOptions) -> tuple[Adapter, Answer]:
    """Return the adapter and its scores of every label. Raise WrongTask for a model without probabilities."""
    reference = server.foundations.directory.fix(body.model, options.sticky)
    host, adapter = await server.foundations.adapter(reference, options.sticky)
    if adapter is None or adapter.task != _TASK:
        task = host.spec.own_tasks[0] if adapter is None else adapter.task
        raise WrongTask(body.model, task, _TASK)
    if adapter.problem_type == "regression":
        raise WrongTask(body.model, "regression", _TASK, "its scores are not probabilities")
    parameters: dict[str, Any] = {"top_k": None, **body.truncation_parameters}
    return adapter, await server.foundations.predict(reference, body.texts(), parameters, _TASK, options)


def _moderation(prediction: Sequence[dict[str, Any]], adapter: Adapter) -> Moderation:
    scores = {one["label"]: one["score"] for one in prediction}
    if adapter.problem_type == "multi_label_classification" or len(adapter.labels) == 1:
        categories = {label: scores[label] >= THRESHOLD for label in adapter.labels}
        flagged = any(categories.values())
    else:
        best = prediction[0]["label"]
        categories = {label: label == best for label in adapter.labels}
        flagged = best != adapter.labels[0]
    return Moderation(
        flagged=flagged,
        categories=categories,
        category_scores={label: scores[label] for label in adapter.labels},
        category_applied_input_types={label: ["text"] for label in adapter.labels},
    )
