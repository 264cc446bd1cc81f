"""Many inputs in few calls: parts of an iterable, several of them under way, and results in the inputs' order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from threading import Event, Thread
from typing import Any, Generic, TypeVar

from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.progress import Report, count_progress

X = TypeVar("X")
Y = TypeVar("Y")

# A server computes small calls of many clients together, and a large one keeps a place in its queue for longer.
DEFAULT_BATCH = 64


@dataclass(frozen=True)
class BatchPlan(Generic[X]):
    """The division of many inputs: the inputs, the most of a call, the most calls at once, and who is told."""

    inputs: Iterable[X]
    batch: int
    concurrency: int
    progress: bool | Report

    def __post_init__(self) -> None:
        if isinstance(self.inputs, str | bytes | Mapping | PathLike):
            kind = type(self.inputs).__name__
            raise Misused(f"inputs is one {kind}, not many inputs; give a list, or call predict for one input")
        for name in ("batch", "concurrency"):
            if getattr(self, name) < 1:
                raise Misused(f"{name} is {getattr(self, name)}; give 1 or more")

    def parts(self, most: int) -> Iterator[Sequence[X]]:
        """Yield the inputs in parts of `batch`, of `most` if that is less. Read one part at a time."""
        left = iter(self.inputs)
        while part := [*islice(left, min(self.batch, most))]:
            yield part


def in_order(ask: Callable[[Sequence[X], Event], Sequence[Y]], plan: BatchPlan[X], most: int) -> Iterator[Y]:
    """Yield the results in the order of the inputs, with at most `concurrency` parts in memory.

    `ask` is called in a thread for each part. The event is set once nobody waits for its result any more.
    """
    waiting: deque[Future[Sequence[Y]]] = deque()
    ended = Event()
    with _counted(plan) as counted:
        try:
            for part in plan.parts(most):
                if len(waiting) == plan.concurrency:
                    yield from counted(waiting.popleft().result())
                waiting.append(_begun(ask, part, ended))
            while waiting:
                yield from counted(waiting.popleft().result())
        finally:
            ended.set()


def _begun(ask: Callable[[X, Event], Y], part: X, ended: Event) -> Future[Y]:
    """Return the result of a call that a thread makes."""
    future: Future[Y] = Future()

    def run() -> None:
        try:
            future.set_result(ask(part, ended))
        except BaseException as error:
            future.set_exception(error)

    # A process waits at its end for the threads of a ThreadPoolExecutor. Ctrl-C would then wait for the server.
    Thread(target=run, daemon=True).start()
    return future


async def in_order_async(
    ask: Callable[[Sequence[X]], Awaitable[Sequence[Y]]], plan: BatchPlan[X], most: int
) -> AsyncGenerator[Y, None]:
    """Yield as `in_order` does; the calls run as tasks of this event loop."""
    waiting: deque[asyncio.Future[Sequence[Y]]] = deque()
    with _counted(plan) as counted:
        try:
            for part in plan.parts(most):
                if len(waiting) == plan.concurrency:
                    for result in counted(await waiting.popleft()):
                        yield result
                waiting.append(asyncio.ensure_future(ask(part)))
            while waiting:
                for result in counted(await waiting.popleft()):
                    yield result
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


@contextmanager
def _counted(plan: BatchPlan[Any]) -> Iterator[Callable[[Sequence[Y]], Sequence[Y]]]:
    """Yield a function that reports the results that it is given, and returns them."""
    total = len(plan.inputs) if isinstance(plan.inputs, Sized) else None
    done = 0
    with count_progress(plan.progress) as report:

        def count(results: Sequence[Y]) -> Sequence[Y]:
            nonlocal done
            done += len(results)
            report(done, total)
            return results

        yield count
