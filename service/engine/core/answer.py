"""Hold a request's outcome: its answer, or its error, and the time of each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.engine.core.request import Request


@dataclass(frozen=True, slots=True)
class Answer:
    """One reference's predictions, one for each input, in order. Times are in milliseconds; see RequestRecord.

    `problem_type` is the adapter's, which tells scores of labels from numbers.
    """

    resolved: ResolvedReference
    task: str
    predictions: list[Any]
    prompt_tokens: int
    load_ms: float
    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float
    problem_type: str | None = None


@dataclass(slots=True)
class RequestRecord:
    """One reference of a call that has ended: it was answered, or it failed with `error`.

    The properties give the seconds that an answered reference took. `load`: to resolve the reference and to have
    its adapter in host memory. `tokenize`: to tokenise. `queue`: to wait before the tokeniser and before the
    first batch. `inference`: from the start of the first batch to the last output. `total`: from arrival until
    the event loop took the answer.
    """

    reference: str
    resolved: ResolvedReference
    request: Request
    ended: float
    error: EngineError | None = None

    @property
    def load(self) -> float:
        return self.request.progress.ready - self.request.arrived

    @property
    def tokenize(self) -> float:
        return self.request.progress.prepared - self.request.progress.preparing

    @property
    def queue(self) -> float:
        return (self.request.progress.started or 0.0) - self.request.progress.ready - self.tokenize

    @property
    def inference(self) -> float:
        return (self.request.progress.finished or 0.0) - (self.request.progress.started or 0.0)

    @property
    def total(self) -> float:
        return self.ended - self.request.arrived

    def answer(self, predictions: list[Any]) -> Answer:
        """Return the answer with these predictions."""
        return Answer(
            self.resolved,
            self.request.adapter.task,
            predictions,
            self.request.progress.cost,
            _ms(self.load),
            _ms(self.tokenize),
            _ms(self.queue),
            _ms(self.inference),
            _ms(self.total),
            self.request.adapter.problem_type,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
