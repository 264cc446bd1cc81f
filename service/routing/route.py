"""Hold the routes of a request: the selector's choice for each text, and the answer of the chosen adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rootstock.adapters.errors import AdapterError
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import EngineError

# The label of texts that no adapter is for.
NONE = "none"


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """The score below which a text is unsure, and the reference that answers then.

    A text is unsure if the selector's score is below `threshold`, from 0 to 1, or its label is `none`. The
    reference `fallback` answers it; without one it gets an error.
    """

    threshold: float = 0.0
    fallback: str | None = None

    def overridden(self, threshold: float | None, fallback: str | None) -> RoutingRule:
        """Return the rule with the values that a request states."""
        return RoutingRule(
            self.threshold if threshold is None else threshold, self.fallback if fallback is None else fallback
        )

    def choose(self, label: str, score: float) -> tuple[str | None, bool]:
        """Return the reference that answers, and whether it is the fallback; None if there is no fallback."""
        if label == NONE or score < self.threshold:
            return self.fallback, True
        return label, False


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one text: the selector's `label` and `score`, and the outcome.

    `reference` is the label or the fallback, None if there is neither. `answer` is the chosen adapter's answer to
    all texts that it got, and `place` that of this text in it. Either `answer` or `error` is None.
    """

    label: str
    score: float
    reference: str | None
    fallback: bool
    answer: Answer | None = None
    place: int = 0
    error: EngineError | AdapterError | None = None

    @property
    def prediction(self) -> Any:
        """Return the chosen adapter's prediction for the text; None if the route failed."""
        return None if self.answer is None else self.answer.predictions[self.place]


@dataclass(frozen=True, slots=True)
class RoutedAnswer:
    """The routes of a request's texts, in order, with the selector's own answer. `total_ms` is the whole time.

    `reference` is the one that the request or the operator gave for the selector.
    """

    reference: str
    selector: Answer
    routes: Sequence[Route]
    total_ms: float

    @property
    def prompt_tokens(self) -> int:
        """Return the number of tokens that the selector and the chosen adapters computed."""
        answers = {id(route.answer): route.answer for route in self.routes if route.answer is not None}
        return self.selector.prompt_tokens + sum(answer.prompt_tokens for answer in answers.values())
