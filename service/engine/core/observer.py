"""Define the observers that the engine reports its work to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rootstock.service.engine.core.answer import RequestRecord
from rootstock.service.engine.core.errors import EngineError
from rootstock.service.engine.core.work import Priority

# The tiers that an adapter is loaded into: "memory" from the store, and "slot" from host memory.
Tier = Literal["memory", "slot"]


@dataclass(frozen=True)
class BatchStats:
    """The figures of one batch: `tokens` without padding, `padded` with it, and `seconds` in the runner.

    `waits` holds one entry for each request whose first batch this is: its priority and the seconds since it
    arrived. Verification adds no entry.
    """

    rows: int
    adapters: int
    tokens: int
    padded: int
    seconds: float
    waits: Sequence[tuple[Priority, float]] = ()


@dataclass(frozen=True)
class GenerationStats:
    """The figures of a call for text that has ended. `first` and `total` are in seconds since it arrived.

    `tokens` counts those of all its answers. `reused_tokens` of the prompt were not computed. `first` is None if
    it ended before any. `error` is the code of the error that ended it, or None. `version` is the adapter's; None
    for a foundation and a composition, of which `parts` holds the names of the adapters.
    """

    name: str
    prompt_tokens: int
    reused_tokens: int
    tokens: int
    answers: int
    first: float | None
    total: float
    error: str | None = None
    version: int | None = None
    parts: tuple[str, ...] = ()


class Observer:
    """A receiver of reports about the engine's work. The engine's threads call it, so it must not block."""

    def batch(self, stats: BatchStats) -> None:
        """Note that a batch ran."""

    def refused(self, reason: str) -> None:
        """Note that the engine refused a call, or part of it, with an EngineError whose code is `reason`."""

    def served(self, served: RequestRecord) -> None:
        """Note that a reference of an admitted call was answered, or failed.

        The task that made the call calls this method.
        """

    def generated(self, stats: GenerationStats) -> None:
        """Note that a call for text has ended. The task that made the call calls this method."""

    def loaded(self, tier: Tier, seconds: float, ok: bool) -> None:
        """Note that an adapter was loaded into a tier, or, where `ok` is false, that its load failed."""

    def evicted(self, tier: Tier) -> None:
        """Note that an adapter left a tier."""


class Observers(Observer):
    """Several observers as one. It logs an observer's own faults, so that they hold no answer back.

    It replaces each Observers object among them by its members, so that one loop calls every observer once.
    """

    def __init__(self, *observers: Observer) -> None:
        self.observers: tuple[Observer, ...] = tuple(
            each for one in observers for each in (one.observers if isinstance(one, Observers) else (one,))
        )

    def batch(self, stats: BatchStats) -> None:
        self._tell("batch", stats)

    def refused(self, reason: str) -> None:
        self._tell("refused", reason)

    def served(self, served: RequestRecord) -> None:
        self._tell("served", served)

    def generated(self, stats: GenerationStats) -> None:
        self._tell("generated", stats)

    def loaded(self, tier: Tier, seconds: float, ok: bool) -> None:
        self._tell("loaded", tier, seconds, ok)

    def evicted(self, tier: Tier) -> None:
        self._tell("evicted", tier)

    def _tell(self, event: str, *arguments: Any) -> None:
        for observer in self.observers:
            try:
                getattr(observer, event)(*arguments)
            except Exception:
                logging.getLogger(__name__).exception("an observer failed on the event %s", event)


class RefusalReport:
    """A context that reports an EngineError to an observer as a refusal. It may be entered again and again."""

    __slots__ = ("_observer",)

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def __enter__(self) -> None:
        """Begin to watch for refusals."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Report the error, if it is a refusal. The error goes on to the caller."""
        if isinstance(error, EngineError):
            self._observer.refused(error.code)
