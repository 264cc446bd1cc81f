"""A request's outcome: its answer, and where its time went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.engine.core.request import Request


@dataclass(frozen=True, slots=True)
class Answer:
    """One reference's predictions, one an input, in order. Times in milliseconds, each as in RequestRecord."""

    resolved: ResolvedReference
    task: str
    predictions: list[Any]
    prompt_tokens: int
    load_ms: float
    tokenize_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float


@dataclass(slots=True)
class RequestRecord:
    """One reference of a call that came to its end: answered, or failed with `error`.

    Of an answered one the properties say how many seconds it took: to `load` what the reference means (to resolve
    it and to have it in host memory), to `tokenize`, to wait in the `queue` (before the tokeniser and before the
    first batch), for `inference` (from the first batch to the last output), and in `total`, until its answer was
    taken.
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
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
