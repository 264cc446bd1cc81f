"""Share the machine's cores between the engines of several foundations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# The longest time in seconds that the cores wait for an engine that is about to return. It covers the way of an
# answer to its client and of the client's next request.
_MOST_WAIT = 0.02


@dataclass(slots=True)
class _Share:
    """What an engine has had: its time in turns, when its last turn ended, and its usual pause until the next."""

    used: float = 0.0
    ended: float | None = None
    pause: float = float("inf")

    def arrive(self, now: float) -> None:
        """Note that the engine asks for a turn. Its usual pause is half the last one and half those before."""
        if self.ended is not None:
            pause = now - self.ended
            self.pause = pause if self.pause > _MOST_WAIT else (self.pause + pause) / 2
            self.ended = None


class Arbiter:
    """A lock that lets one engine compute at a time: the waiting engine that has used the least time.

    Each runner uses all cores, so two at once would slow each other down. Time is virtual, as in start-time fair
    queueing (Goyal, Vin and Cheng 1996). An engine that returns after a pause starts at the virtual time at which
    the last turn began, so a pause saves up no time. A busy foundation therefore delays another by about one
    batch.

    Clients that wait for each answer make their engine pause after each turn. An engine of short batches would
    then get one of them for each long batch of another. So the cores wait for an engine that is behind the others
    and that usually returns at once: for twice its usual pause, at most `_MOST_WAIT` and at most the time that it
    is behind. Source: Iyer and Druschel, "Anticipatory Scheduling", 2001.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._shares: dict[str, _Share] = {}
        self._waiting: list[tuple[float, int, str]] = []
        self._arrivals = 0
        self._running = False
        self._now = 0.0
        # Until this time no turn begins, unless the engine that gave the last one back returns before.
        self._free = 0.0
        self._last = ""

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
            share = self._shares.setdefault(engine, _Share())
            share.arrive(self._clock())
            start = max(share.used, self._now)
            self._arrivals += 1
            entry = (start, self._arrivals, engine)
            self._waiting.append(entry)
            if engine == self._last:
                self._free = 0.0
                self._changed.notify_all()
            while self._running or min(self._waiting) != entry or (left := self._free - self._clock()) > 0:
                waits_alone = not self._running and min(self._waiting) == entry
                self._changed.wait(left if waits_alone else None)
            self._waiting.remove(entry)
            self._running = True
            self._now = start
            share.used = start
        return self._clock()

    def _give_back(self, engine: str, began: float) -> None:
        with self._changed:
            share, now = self._shares[engine], self._clock()
            share.used += now - began
            share.ended = now
            self._running = False
            self._last = engine
            behind = min(self._waiting)[0] - share.used if self._waiting else 0.0
            wait = 2 * share.pause
            self._free = now + wait if wait <= min(_MOST_WAIT, behind) else now
            self._changed.notify_all()
