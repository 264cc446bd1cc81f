"""Shadows of requests: another version computes them too, and nobody gets its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Protocol

import structlog

from rootstock.adapters.registry.rollout_records import ShadowResult
from rootstock.service.engine.core.answer import Answer
from rootstock.service.foundations import PredictCall
from rootstock.service.rollout.agreement import agree
from rootstock.service.rollout.blame import blame_of
from rootstock.service.rollout.version_windows import VersionWindows

# Computes a call on a version of an adapter, by the name that the registry keeps.
ComputeShadow = Callable[[str, int, PredictCall], Awaitable[Answer]]


class ShadowCounter(Protocol):
    """A counter of the shadows of requests."""

    def shadowed(self, result: ShadowResult) -> None:
        """Count a shadow that has ended."""


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """The versions of an adapter whose answers are compared: the judged one and its incumbent.

    One of them answered the request, and `computed` is the other.
    """

    name: str
    judged: int
    incumbent: int
    computed: int


class ShadowTraffic:
    """The shadows of requests under way, at most `most`; all others are dropped. Use it from one event loop."""

    def __init__(
        self, compute: ComputeShadow, windows: VersionWindows, counter: ShadowCounter, most: int
    ) -> None:
        self._compute = compute
        self._windows = windows
        self._counter = counter
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, pair: ShadowPair, call: PredictCall, answer: Answer) -> None:
        """Compute an answered call on the pair's other version, without waiting for it; drop it if it is busy."""
        if len(self._tasks) >= self._most:
            self._counter.shadowed("dropped")
            return
        # An empty context: neither the quota, nor the span, nor the request id of the request are the shadow's.
        task = asyncio.get_running_loop().create_task(self._run(pair, call, answer), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until no shadow is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel the shadows under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, pair: ShadowPair, call: PredictCall, answer: Answer) -> None:
        try:
            other = await self._compute(pair.name, pair.computed, call)
        except Exception as error:  # A version can fail in any way, and nobody waits for it.
            self._counter.shadowed(self._fail(pair, error))
            return
        self._windows.answered(pair.name, pair.computed, seconds_of(other))
        differs = not agree(answer, other)
        self._windows.compared(pair.name, pair.judged, pair.incumbent, differs)
        self._counter.shadowed("differed" if differs else "agreed")

    def _fail(self, pair: ShadowPair, error: Exception) -> ShadowResult:
        # A shadow has a separate timeout: to miss it means that other work went first.
        blame = blame_of(error, own_timeout=True)
        if blame == "server":
            return "dropped"
        if blame == "request":
            # The other version answered this request.
            self._windows.compared(pair.name, pair.judged, pair.incumbent, True)
            return "differed"
        self._windows.failed(pair.name, pair.computed)
        structlog.get_logger().warning(
            "shadow failed", adapter=pair.name, version=pair.computed, error=type(error).__name__
        )
        return "failed"


def seconds_of(answer: Answer) -> float:
    """Return the seconds that a version took to compute an answer, without waiting and loading."""
    return (answer.tokenize_ms + answer.inference_ms) / 1e3
