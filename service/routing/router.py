"""The router of a server: it lets a selector adapter choose the adapter of each text, and that adapter answer."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rootstock.adapters.errors import (
    AdapterError,
    AmbiguousDigest,
    FoundationNotHosted,
    InvalidName,
    InvalidReference,
    NoLiveVersion,
    RegistryUnavailable,
    UnknownAdapter,
    UnknownAlias,
    UnknownVersion,
)
from rootstock.adapters.reference import AUTO, DEFAULT_TENANT, shown
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import (
    Draining,
    EngineError,
    Expired,
    Overloaded,
    WrongRoute,
    WrongTask,
)
from rootstock.service.engine.encode.modalities.text_input import Question
from rootstock.service.foundations import Foundations, PredictCall
from rootstock.service.references.splits import noting
from rootstock.service.routing.errors import InvalidRoute, InvalidSelector, NoRoute, NoRouter
from rootstock.service.routing.route import NONE, Route, RoutedAnswer, RoutingRule
from rootstock.service.two_towers import together

_TASK = "text-classification"
# A selector reads as much of a long text as it can. The chosen adapter may refuse the text.
_PARAMETERS = {"truncation": True}
# The errors of a reference that means no version that this server can use.
_MEANINGLESS = (
    UnknownAdapter, UnknownVersion, UnknownAlias, NoLiveVersion, InvalidReference, InvalidName, AmbiguousDigest,
    FoundationNotHosted,
)  # fmt: skip
# The errors of a call as a whole, which say nothing about a route.
_OF_CALL = (Overloaded, Expired, Draining, RegistryUnavailable)
_PLACE = re.compile(r"inputs\[(\d+)\]")


@dataclass(frozen=True)
class Router:
    """The router that requests name as `auto`, or as `auto:SELECTOR` to use another selector.

    `selector` is the operator's, None if there is none. Its tenant is the default one. `rule` holds for requests
    that state no other.
    """

    selector: str | None = None
    rule: RoutingRule = field(default_factory=RoutingRule)

    def of_tenant(self, tenant: str) -> Router:
        """Return the router for a tenant's requests: the operator's selector answers it while it is shared."""
        if tenant == DEFAULT_TENANT or self.selector is None or "/" in self.selector:
            return self
        return replace(self, selector=f"{DEFAULT_TENANT}/{self.selector}")

    async def predict(
        self, foundations: Foundations, model: str, call: PredictCall, rule: RoutingRule
    ) -> RoutedAnswer:
        """Return the route of each input: the selector's label, and the answer of the adapter that it names.

        Labels are resolved as the tenant of `foundations` sees them. The inputs of one adapter are one call. An
        error of one adapter is in the routes of its inputs. Raise NoRouter, InvalidSelector, or the errors of
        `Foundations.predict` for the selector and for the call as a whole.
        """
        # The headers about a split state the one version that answered, and here several have a part in the
        # answer. Its body states them.
        with noting(set()):
            return await self._predict(foundations, model, call, rule)

    async def _predict(
        self, foundations: Foundations, model: str, call: PredictCall, rule: RoutingRule
    ) -> RoutedAnswer:
        began = time.monotonic()
        deadline = call.options.deadline(began, foundations.timeout_s)
        selection = await _select(foundations, self.selector_of(model), call)
        routes = [_chosen(one["label"], one["score"], rule) for one in selection.answer.predictions]
        if (seconds := deadline - time.monotonic()) <= 0:
            raise Expired("the time of the request passed while the selector computed; allow more")
        rest = replace(call, options=replace(call.options, timeout_s=seconds))
        places: dict[str, list[int]] = {}
        for place, route in enumerate(routes):
            if route.reference is not None:
                places.setdefault(route.reference, []).append(place)
        calls = (
            _answer(foundations, selection, reference, replace(rest, inputs=_at(rest.inputs, own)))
            for reference, own in places.items()
        )
        outcomes = await together(list(calls))
        for own, outcome in zip(places.values(), outcomes, strict=True):
            for i, place in enumerate(own):
                routes[place] = (
                    replace(routes[place], answer=outcome, place=i)
                    if isinstance(outcome, Answer)
                    else replace(routes[place], error=_numbered(outcome, own))
                )
        total_ms = round((time.monotonic() - began) * 1e3, 3)
        return RoutedAnswer(selection.reference, selection.answer, routes, total_ms)

    def selector_of(self, model: str) -> str:
        """Return the selector of a request for this model. Raise NoRouter if there is none."""
        _, colon, named = model.partition(":")
        if colon:
            return named
        if self.selector is None:
            raise NoRouter(
                f"this server has no router; set ROOTSTOCK_ROUTER to a selector, or name one: {AUTO}:NAME",
                "model",
            )
        return self.selector


@dataclass(frozen=True)
class _Selection:
    """The selector's answer to all inputs of a request, with the reference that it was asked under."""

    reference: str
    answer: Answer


async def _select(foundations: Foundations, reference: str, call: PredictCall) -> _Selection:
    """Return what the selector answers to the inputs; of a question with a context it reads the question."""
    texts = [one.question if isinstance(one, Question) else one for one in call.inputs]
    try:
        answer = await foundations.predict(reference, texts, _PARAMETERS, _TASK, call.options)
    except (WrongTask, WrongRoute) as error:
        raise InvalidSelector(f"the selector must be a {_TASK} adapter, and {error}", "model") from None
    if answer.problem_type == "regression":
        raise InvalidSelector(
            f"the selector {reference!r} gives numbers, not labels with probabilities; name a {_TASK} adapter "
            "whose labels are references",
            "model",
        )
    return _Selection(reference, answer)


def _chosen(label: str, score: float, rule: RoutingRule) -> Route:
    """Return the route of a text whose answer is still to come, or with the error that nothing answers it."""
    reference, fallback = rule.choose(label, score)
    if reference is not None:
        return Route(label, score, reference, fallback)
    reason = (
        f"its label is {NONE!r}"
        if label == NONE
        else f"its score for {shown(label)} is {score:.3f}, below the threshold {rule.threshold:g}"
    )
    error = NoRoute(
        f"the selector is sure of no adapter for this text: {reason}; name the adapter as model, or a "
        "fallback as routing.fallback",
        "inputs",
    )
    return Route(label, score, None, fallback, error=error)


async def _answer(
    foundations: Foundations, selection: _Selection, reference: str, call: PredictCall
) -> Answer | EngineError | AdapterError:
    """Return the answer of the adapter that a label or the fallback names, or its error."""
    by = selection.answer.resolved
    chose = f"the selector {selection.reference!r}, version {by.version}, routes to {shown(reference)}, which"
    try:
        if foundations.directory.is_routed(reference) or _is_of(foundations, reference, by.name):
            return InvalidRoute(f"{chose} is the router itself; label texts with the adapters that answer them")
        return await foundations.predict(reference, call.inputs, call.parameters, call.task, call.options)
    except _OF_CALL:
        raise
    except (*_MEANINGLESS, WrongRoute) as error:
        return InvalidRoute(f"{chose} cannot answer: {error}")
    except (EngineError, AdapterError) as error:
        return error


def _is_of(foundations: Foundations, reference: str, selector: str) -> bool:
    """Tell whether a reference means a version of the selector. Raise as the registry does."""
    if foundations.directory.named(reference) is not None:
        return False
    resolution = foundations.directory.resolve(reference)
    return (resolution.stored or resolution.name) == selector


def _at(inputs: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [inputs[place] for place in places]


def _numbered(error: EngineError | AdapterError, places: Sequence[int]) -> EngineError | AdapterError:
    """Give an error of one adapter's inputs the numbers that these have in the request."""

    def renumber(found: re.Match[str]) -> str:
        place = int(found[1])
        return f"inputs[{places[place]}]" if place < len(places) else found[0]

    error.args = (_PLACE.sub(renumber, str(error.args[0])), *error.args[1:])
    if error.param is not None:
        error.param = _PLACE.sub(renumber, error.param)
    return error
