"""Who is told of what the engine does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.engine.batch import Priority


@dataclass(frozen=True)
class BatchStats:
    """One batch as run: `tokens` without padding, `padded` with it, `seconds` in the runner.

    `waits`: of each request whose first batch this is, its priority and the seconds since it arrived; not of
    verification.
    """

    rows: int
    adapters: int
    tokens: int
    padded: int
    seconds: float
    waits: Sequence[tuple[Priority, float]] = ()


class Observer(Protocol):
    """Told of what the engine does; called from its threads, must not block."""

    def batch(self, stats: BatchStats) -> None: ...

    def refused(self, reason: str) -> None: ...


class Guarded:
    """An observer whose own faults are logged: what is counted wrong keeps no answer back."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def batch(self, stats: BatchStats) -> None:
        """A batch was run."""
        try:
            self._observer.batch(stats)
        except Exception:
            logging.getLogger(__name__).exception("the observer failed on a batch")

    def refused(self, reason: str) -> None:
        """A request was refused, for an EngineError of this code."""
        try:
            self._observer.refused(reason)
        except Exception:
            logging.getLogger(__name__).exception("the observer failed on a refusal")
