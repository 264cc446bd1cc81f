"""Many inputs in few calls: parts of an iterable, several of them under way, and results in the inputs' order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from rootstock.adapters.client.errors import Misused
from rootstock.adapters.client.progress import Report, count_progress

X = TypeVar("X")
Y = TypeVar("Y")

# A server computes small calls of many clients together, and a large one keeps a place in its queue for longer.
DEFAULT_BATCH = 64


@dataclass(frozen=True)
class BatchPlan:
    """The division of many inputs: the most inputs of a call, the most calls at once, and who is told."""

    batch: int
    concurrency: int
    progress: bool | Report

    def __post_init__(self) -> None:
        for name in ("batch", "concurrency"):
            if getattr(self, name) < 1:
                raise Misused(f"{name} is {getattr(self, name)}; give 1 or more")

    def parts(self, inputs: Iterable[X], most: int) -> Iterator[Sequence[X]]:
        """Yield the inputs in parts of `batch`, of `most` if that is less. Read one part at a time."""
        left = iter(inputs)
        while part := [*islice(left, min(self.batch, most))]:
            yield part


def in_order(
    ask: Callable[[Sequence[X]], Sequence[Y]], plan: BatchPlan, inputs: Iterable[X], most: int
) -> Iterator[Y]:
    """Yield the results in the order of the inputs, with at most `concurrency` parts in memory."""
    waiting: deque[Future[Sequence[Y]]] = deque()
    with ThreadPoolExecutor(plan.concurrency) as threads, _counted(plan, inputs) as counted:
        try:
            for part in plan.parts(inputs, most):
                if len(waiting) == plan.concurrency:
                    yield from counted(waiting.popleft().result())
                waiting.append(threads.submit(ask, part))
            while waiting:
                yield from counted(waiting.popleft().result())
        finally:
            for future in waiting:
                future.cancel()


async def in_order_async(
    ask: Callable[[Sequence[X]], Awaitable[Sequence[Y]]], plan: BatchPlan, inputs: Iterable[X], most: int
) -> AsyncGenerator[Y, None]:
    """Yield as `in_order` does; the calls run as tasks of this event loop."""
    waiting: deque[asyncio.Future[Sequence[Y]]] = deque()
    with _counted(plan, inputs) as counted:
        try:
            for part in plan.parts(inputs, most):
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
def _counted(plan: BatchPlan, inputs: Any) -> Iterator[Callable[[Sequence[Y]], Sequence[Y]]]:
    """Yield a function that reports the results that it is given, and returns them."""
    total = len(inputs) if hasattr(inputs, "__len__") else None
    done = 0
    with count_progress(plan.progress) as report:

        def count(results: Sequence[Y]) -> Sequence[Y]:
            nonlocal done
            done += len(results)
            report(done, total)
            return results

        yield count
