"""The cores of a simulated machine, and the threads that share them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
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

    Processor sharing lets a thread work as soon as it wakes. A real one may wait for the end of another's turn.
    `late` has samples of this wait, in seconds: first those beside one thread for each core, then those beside
    two for each, and so on.
    """

    def __init__(
        self,
        environment: Environment,
        cores: int,
        slowdown: float = 1.0,
        late: Sequence[Sequence[float]] = (),
        seed: str = "",
    ) -> None:
        self._environment = environment
        self._cores = cores
        self._late = late
        self._dice = random.Random(seed)  # noqa: S311 - a simulation, no secrets
        # A single core is one of several, all of which work.
        self._speeds = [1.0] + [
            1 / (1 + (slowdown - 1) * ((active - 1) / (cores - 1) if cores > 1 else 1))
            for active in range(1, cores + 1)
        ]
        self._full = cores * self._speeds[cores]
        self._virtual = self._at = 0.0
        # The process that computed last.
        self.user: object = None
        self._requests = 0
        self._ended = environment.now
        self._order = count()
        self._working: list[tuple[float, int, Done, Any]] = []
        self._plan = 0
        self.used = 0.0

    def begin(self) -> float:
        """Note that a replica on these cores has a request, and return for how long none has had one."""
        pause = 0.0 if self._requests else self._environment.now - self._ended
        self._requests += 1
        return pause

    def end(self) -> None:
        """Note that a request has ended."""
        self._requests -= 1
        self._ended = self._environment.now

    @property
    def active(self) -> int:
        """Return the number of threads that work."""
        return len(self._working)

    def work(self, seconds: float, done: Done, value: Any = None) -> None:
        """Work for `seconds` of one core's time, then call `done(value)`."""
        self._advance()
        heappush(self._working, (self._virtual + seconds, next(self._order), done, value))
        self._schedule()

    def wake(self, seconds: float, done: Done, value: Any = None, threads: int = 1) -> None:
        """Work as `work` does, with threads that sleep: one wakes the next, so many in all."""
        beside = min(len(self._working) // self._cores, len(self._late))
        late = sum(self._dice.choice(self._late[beside - 1]) for _ in range(threads)) if beside else 0.0
        if late:
            timeout = self._environment.timeout(late)
            timeout.callbacks.append(lambda event: self.work(seconds, done, value))
        else:
            self.work(seconds, done, value)

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


class AnyCore:
    """The cores of a machine on which processes are pinned, for a thread that is not: it works on the idlest."""

    def __init__(self, cores: Sequence[SharedCores]) -> None:
        self._cores = cores

    def work(self, seconds: float, done: Done, value: Any = None) -> None:
        """Work for `seconds` on the core with the fewest threads, then call `done(value)`."""
        self._idlest.work(seconds, done, value)

    def wake(self, seconds: float, done: Done, value: Any = None, threads: int = 1) -> None:
        """Work as `work` does, with threads that sleep."""
        self._idlest.wake(seconds, done, value, threads)

    @property
    def _idlest(self) -> SharedCores:
        return min(self._cores, key=lambda core: core.active)


class SerialThread:
    """A thread that does one piece of work after the other, in the order in which they come.

    With several `threads` it stands for a chain of so many, of which each wakes the next.
    """

    def __init__(self, cores: SharedCores | AnyCore, threads: int = 1) -> None:
        self._cores = cores
        self._threads = threads
        self._waiting: deque[tuple[float, Done, Any]] = deque()
        self._busy = False

    def do(self, seconds: float, done: Done, value: Any = None) -> None:
        """Work for `seconds` once the earlier pieces are done, then call `done(value)`."""
        if self._busy:
            self._waiting.append((seconds, done, value))
        else:
            self._busy = True
            self._cores.wake(seconds, self._next, (done, value), self._threads)

    def _next(self, piece: tuple[Done, Any]) -> None:
        if self._waiting:
            seconds, done, value = self._waiting.popleft()
            self._cores.work(seconds, self._next, (done, value))
        else:
            self._busy = False
        done, value = piece
        done(value)
