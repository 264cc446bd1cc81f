"""The observers that the engine tells of its work."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rootstock.service.engine.core.answer import RequestRecord
from rootstock.service.engine.core.work import Priority

# The tiers that an adapter is loaded into: host memory from the store, a slot from host memory.
Tier = Literal["memory", "slot"]


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


class Observer:
    """An observer is told of what the engine does. The engine's threads call it, so it must not block."""

    def batch(self, stats: BatchStats) -> None:
        """Note that a batch was run."""

    def refused(self, reason: str) -> None:
        """Note that a call was not admitted, or not all of it, for an EngineError of this code."""

    def served(self, served: RequestRecord) -> None:
        """Note that a reference of an admitted call was answered, or failed.

        It is called from the task that made the call.
        """

    def loaded(self, tier: Tier, seconds: float, ok: bool) -> None:
        """Note that an adapter was brought into a tier, or could not be."""

    def evicted(self, tier: Tier) -> None:
        """Note that an adapter left a tier."""


class Observers(Observer):
    """Several as one. Their own faults are logged: what is counted wrong keeps no answer back.

    Observers among them become those that they hold, so that each is told once and from one place.
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

    def loaded(self, tier: Tier, seconds: float, ok: bool) -> None:
        self._tell("loaded", tier, seconds, ok)

    def evicted(self, tier: Tier) -> None:
        self._tell("evicted", tier)

    def _tell(self, what: str, *told: Any) -> None:
        for observer in self.observers:
            try:
                getattr(observer, what)(*told)
            except Exception:
                logging.getLogger(__name__).exception("the observer failed on: %s", what)
