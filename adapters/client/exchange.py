"""Calls of routes, pauses, and the flows that yield both; a transport carries them out.

A flow holds all logic of an operation and does no input or output itself. It yields a step, and is sent the
step's result or thrown its error. One flow serves the blocking and the asynchronous client (ADR 27).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from rootstock.adapters.client.errors import Misused, Refused, ServerBusy, Unreachable

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

# Seconds. The first pause is about this long, and each further one twice as long, up to the longest.
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 8.0
# Seconds, about 24 days. A socket counts a longer wait as milliseconds that no 32-bit integer holds.
_LONGEST_TIMEOUT = 2_000_000


@dataclass(frozen=True)
class HttpCall(Generic[T]):
    """A request to a route, and the reader of its answer.

    `repeatable` says that the server may carry it out twice without harm. With `streams` the reader gets an open
    response. `timeout` is in seconds, the client's if None.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    # Keyword arguments of httpx: params, json, data, files.
    content: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    streams: bool = False
    timeout: float | None = None


@dataclass(frozen=True)
class Pause:
    """A pause of some seconds between two calls."""

    seconds: float


ClientFlow: TypeAlias = Generator[HttpCall[Any] | Pause, Any, T]


def step_of(call: HttpCall[T]) -> ClientFlow[T]:
    """Make one call, once."""
    result: T = yield call
    return result


@dataclass(frozen=True)
class RetryPolicy:
    """The rules of repeated calls: at most `retries` more tries, and none that begins after `timeout` seconds.

    A call that got 429 is repeated, because the server refused it before any work. So is one whose connection was
    never made. A call that got 503, or whose connection broke, is repeated only if it is repeatable. The pause is
    the answer's Retry-After, else it doubles with each try. Random parts keep clients from returning together.
    """

    retries: int
    timeout: float
    clock: Callable[[], float]
    draw: Callable[[], float] = random.SystemRandom().random

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise Misused(f"retries is {self.retries}; give 0 or more")
        if not (isinstance(self.timeout, int | float) and 0 < self.timeout <= _LONGEST_TIMEOUT):
            raise Misused(f"timeout is {self.timeout}; give seconds, more than 0 and at most {_LONGEST_TIMEOUT}")

    def ask(self, call: HttpCall[T]) -> ClientFlow[T]:
        """Make a call, and repeat it under these rules; raise the last try's error."""
        deadline = self.clock() + self.timeout
        left = self.timeout
        tried = 0
        while True:
            try:
                return (yield from step_of(replace(call, timeout=left)))
            except (Refused, Unreachable) as error:
                pause = self._pause(error, tried)
                left = deadline - self.clock() - pause
                if tried == self.retries or left <= 0 or not _may_repeat(call, error):
                    raise
            yield Pause(pause)
            tried += 1

    def _pause(self, error: Refused | Unreachable, tried: int) -> float:
        longest: float = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**tried)
        if isinstance(error, Refused) and error.retry_after is not None:
            return error.retry_after + longest * self.draw()
        return longest * (1 + self.draw()) / 2


def _may_repeat(call: HttpCall[Any], error: Refused | Unreachable) -> bool:
    if isinstance(error, Unreachable):
        return call.repeatable or not error.sent
    return isinstance(error, ServerBusy) and (call.repeatable or error.status == 429)
