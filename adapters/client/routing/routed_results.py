"""The results of inputs whose adapters a selector chose, and the call that asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rootstock.adapters.client.errors import Refused, Unreadable, stated_error
from rootstock.adapters.client.predictions import RESULTS, TaskResult


@dataclass(frozen=True, kw_only=True)
class RoutedResult:
    """The way of one input: the selector's label and its score, and the result of the model that answered.

    `model` is the reference that answered: the label, or the fallback's reference if `fallback` is true. It is
    None if the selector was not sure and there is no fallback. Either `result` or `error` is None.
    """

    label: str
    score: float
    model: str | None
    version: int | None
    fallback: bool
    result: TaskResult | None
    error: Refused | None


@dataclass(frozen=True, kw_only=True)
class RoutedResults:
    """The routes of a request's inputs, in order, and the version of the selector that chose them."""

    selector: str
    selector_version: int | None
    routes: tuple[RoutedResult, ...]


def read_routed(document: Mapping[str, Any], expected: type[TaskResult] | None, count: int) -> RoutedResults:
    """Return the routes in an answer of the model `auto`. Raise Unreadable if it is none for `count` inputs."""
    try:
        selector = document["selector"]
        pairs = zip(document["routes"], document["predictions"], strict=True)
        results = RoutedResults(
            selector=str(selector["model"]),
            selector_version=selector["version"],
            routes=tuple(_route(route, raw, expected) for route, raw in pairs),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, StopIteration) as error:
        raise Unreadable(f"the answer has no routes that this client knows ({error!r})") from error
    if len(results.routes) != count:
        raise Unreadable(f"the answer has {len(results.routes)} routes for {count} inputs")
    return results


def routed_predictions(document: Mapping[str, Any], expected: type[TaskResult] | None, count: int) -> list[Any]:
    """Return the results in an answer of the model `auto`. Raise the error of the first input that has none."""
    routes = read_routed(document, expected, count).routes
    for route in routes:
        if route.error is not None:
            raise route.error
    return [route.result for route in routes]


def routing_fields(threshold: float | None, fallback: str | None) -> dict[str, Any]:
    """Return the fields of a request that state its rule for texts that the selector is not sure about."""
    rule = {"threshold": threshold, "fallback": fallback}
    stated = {name: value for name, value in rule.items() if value is not None}
    return {"routing": stated} if stated else {}


def _route(route: Mapping[str, Any], raw: Any, expected: type[TaskResult] | None) -> RoutedResult:
    error = stated_error(route, 200)
    kind = expected or RESULTS.get(str(route["task"]), TaskResult)
    return RoutedResult(
        label=str(route["label"]),
        score=float(route["score"]),
        model=route["model"],
        version=route["version"],
        fallback=bool(route["fallback"]),
        result=None if error is not None else kind.read(raw, str(route["digest"]), route["version"]),
        error=error,
    )
