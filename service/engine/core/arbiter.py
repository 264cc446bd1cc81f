"""Share the machine's cores between the engines of several foundations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Arbiter:
    """A lock that lets one engine compute at a time: the waiting engine that has used the least time.

    Each runner uses all cores, so two at once would slow each other down. Time is virtual, as in start-time fair
    queueing (Goyal, Vin and Cheng 1996). An engine that returns after a pause starts at the virtual time at which
    the last turn began, so a pause saves up no time. A busy foundation therefore delays another by about one
    batch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._used: dict[str, float] = {}
        self._waiting: list[tuple[float, int, str]] = []
        self._arrivals = 0
        self._running = False
        self._now = 0.0

    @contextmanager
    def turn(self, engine: str) -> Iterator[None]:
        """Wait for the engine's turn and hold it while the body runs."""
        began = self._take(engine)
        try:
            yield
        finally:
            self._give_back(engine, began)

    def _take(self, engine: str) -> float:
        with self._changed:
            start = max(self._used.get(engine, 0.0), self._now)
            self._arrivals += 1
            entry = (start, self._arrivals, engine)
            self._waiting.append(entry)
            while self._running or min(self._waiting) != entry:
                self._changed.wait()
            self._waiting.remove(entry)
            self._running = True
            self._now = start
            self._used[engine] = start
        return self._clock()

    def _give_back(self, engine: str, began: float) -> None:
        with self._changed:
            self._used[engine] += self._clock() - began
            self._running = False
            self._changed.notify_all()
