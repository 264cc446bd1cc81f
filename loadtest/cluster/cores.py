"""The cores of a simulated machine, and the threads that share them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from simpy import Environment, Event

# Takes the value that came with the work.
Done = Callable[[Any], None]


class SharedCores:
    """The cores of a machine. Each thread that works gets an equal share of them, and at most one core.

    `slowdown` is how many times as long work takes on one core while all the others work too. Processor sharing
    is computed in virtual time: all threads have one speed, so the thread that ends next stays the same until
    another begins. `used` is the time that all cores together have worked.
    """

    def __init__(self, environment: Environment, cores: int, slowdown: float = 1.0) -> None:
        self._environment = environment
        self._cores = cores
        self._speeds = [1.0] + [
            1 / (1 + (slowdown - 1) * (active - 1) / max(1, cores - 1)) for active in range(1, cores + 1)
        ]
        self._full = cores * self._speeds[cores]
        self._virtual = self._at = 0.0
        self._order = count()
        self._working: list[tuple[float, int, Done, Any]] = []
        self._plan = 0
        self.used = 0.0

    def work(self, seconds: float, done: Done, value: Any = None) -> None:
        """Work for `seconds` of one core's time, then call `done(value)`."""
        self._advance()
        heappush(self._working, (self._virtual + seconds, next(self._order), done, value))
        self._schedule()

    def _speed(self) -> float:
        active = len(self._working)
        return self._speeds[active] if active < len(self._speeds) else self._full / active

    def _advance(self) -> None:
        now = self._environment.now
        if self._working:
            self._virtual += (now - self._at) * self._speed()
            self.used += (now - self._at) * min(len(self._working), self._cores)
        self._at = now

    def _schedule(self) -> None:
        """Wake up when the next thread ends. An earlier wake-up is void, because the speed has changed."""
        self._plan += 1
        if self._working:
            left = max(0.0, (self._working[0][0] - self._virtual) / self._speed())
            # A new timeout always has a list of callbacks.
            self._environment.timeout(left, self._plan).callbacks.append(self._end)

    def _end(self, event: Event) -> None:
        if event.value != self._plan:
            return
        self._advance()
        end, _, done, value = heappop(self._working)
        # Rounding may leave the clock just before the end.
        self._virtual = max(self._virtual, end)
        self._schedule()
        done(value)


class SerialThread:
    """A thread that does one piece of work after the other, in the order in which they come."""

    def __init__(self, cores: SharedCores) -> None:
        self._cores = cores
        self._waiting: deque[tuple[float, Done, Any]] = deque()
        self._busy = False

    def do(self, seconds: float, done: Done, value: Any = None) -> None:
        """Work for `seconds` once the earlier pieces are done, then call `done(value)`."""
        if self._busy:
            self._waiting.append((seconds, done, value))
        else:
            self._busy = True
            self._cores.work(seconds, self._next, (done, value))

    def _next(self, piece: tuple[Done, Any]) -> None:
        if self._waiting:
            seconds, done, value = self._waiting.popleft()
            self._cores.work(seconds, self._next, (done, value))
        else:
            self._busy = False
        done, value = piece
        done(value)
