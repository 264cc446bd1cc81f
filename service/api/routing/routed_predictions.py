"""The field `routing` of POST /v1/predict, and the answer of a request whose inputs a selector routed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StrictStr

from rootstock.service.api.errors import ErrorDetail, fault_detail
from rootstock.service.api.strict import Strict
from rootstock.service.api.task_predictions import Usage
from rootstock.service.engine.core.answer import Answer
from rootstock.service.routing.route import Route, RoutedAnswer


class RoutingFields(Strict):
    """The rule of this request for texts that the selector is not sure about; see ROOTSTOCK_ROUTER_THRESHOLD.

    `threshold` is the lowest score of the selector at which its label answers. `fallback` is the reference that
    answers below it.
    """

    threshold: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] | None = None
    fallback: Annotated[StrictStr, Field(min_length=1)] | None = None


class RoutingSelector(BaseModel):
    """The version of the selector that chose."""

    model: str
    version: int | None
    digest: str


class ChosenModel(BaseModel):
    """The way of one input: the selector's `label` and its `score`, and the model that answered.

    `model` is the label or, if `fallback` is true, the fallback's reference. It is null if the selector was not
    sure and there is no fallback. `error` is null, or says why the input has no prediction. Then `version`,
    `digest` and `task` are null.
    """

    label: str
    score: float
    fallback: bool
    model: str | None
    version: int | None
    digest: str | None
    task: str | None
    error: ErrorDetail | None


class RoutingTimings(BaseModel):
    """The times of a routed answer, in milliseconds: of the selector, and from arrival to answer."""

    selector_ms: float
    total_ms: float


class RoutedPredictions(BaseModel):
    """The answer of the model `auto`: `routes[i]` and `predictions[i]` are for input i.

    A prediction has the form of transformers' pipeline for its route's task. It is null if the route has an
    error.
    """

    model: str
    selector: RoutingSelector
    routes: list[ChosenModel]
    predictions: list[Any]
    usage: Usage
    timings: RoutingTimings


def routed_predictions(model: str, answer: RoutedAnswer) -> RoutedPredictions:
    """Return the answer of a request for `model`, in JSON's form."""
    by = answer.selector.resolved
    return RoutedPredictions(
        model=model,
        selector=RoutingSelector(model=answer.reference, version=by.version, digest=by.digest),
        routes=[_chosen(route) for route in answer.routes],
        predictions=[route.prediction for route in answer.routes],
        usage=Usage(prompt_tokens=answer.prompt_tokens),
        timings=RoutingTimings(selector_ms=answer.selector.total_ms, total_ms=answer.total_ms),
    )


def _chosen(route: Route) -> ChosenModel:
    answer: Answer | None = route.answer
    return ChosenModel(
        label=route.label,
        score=route.score,
        fallback=route.fallback and route.reference is not None,
        model=route.reference,
        version=None if answer is None else answer.resolved.version,
        digest=None if answer is None else answer.resolved.digest,
        task=None if answer is None else answer.task,
        error=None if route.error is None else fault_detail("/v1/predict", route.error)[1],
    )
