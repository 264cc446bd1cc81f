"""The thread that answers: it turns raw outputs into predictions and wakes the event loop for finished calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import Any

from rootstock.service.engine.core.errors import EngineError, RunnerFault
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.core.worker import Worker
from rootstock.service.engine.encode.modalities.reader import Reader
from rootstock.service.engine.encode.modalities.text import reader_of
from rootstock.service.engine.encode.tasks import TASKS

Result = list[Any] | EngineError


@dataclass(eq=False, slots=True)
class Call:
    """Requests that are answered together, with the future that their caller awaits and its event loop.

    `results` holds each finished request's result: its predictions, one for each input, or its error.
    """

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    requests: Sequence[Request]
    results: dict[Request, Result] = field(default_factory=dict)

    def settle(self) -> None:
        """Wake the caller. Call it on the loop's thread."""
        if not self.future.done():
            self.future.set_result(None)

    def abandon(self, error: EngineError) -> None:
        """Give every request without a result this error, and settle. Call it on the loop's thread."""
        for request in self.requests:
            request.progress.leave()
            self.results.setdefault(request, error)
        self.settle()


def _settle(calls: Sequence[Call]) -> None:
    for call in calls:
        call.settle()


class Postprocessor(Worker):
    """A thread that turns each finished request into its result. It settles a call once it has all results.

    Each round takes all requests that finished since the last round, and wakes each event loop once.
    """

    def __init__(self, reader: Reader) -> None:
        super().__init__("postprocess")
        self.calls: dict[Request, Call] = {}
        self._reader = reader
        self._finished: SimpleQueue[tuple[Request, EngineError | None] | None] = SimpleQueue()

    def expect(self, requests: Sequence[Request]) -> Call:
        """Return the call that these requests will settle.

        Call it on the event loop that waits for them, before they run.
        """
        loop = asyncio.get_running_loop()
        call = Call(loop, loop.create_future(), requests)
        self.calls.update(dict.fromkeys(requests, call))
        return call

    def leave(self, call: Call) -> None:
        """Note that nobody waits for the call any more, whether or not it was answered."""
        for request in call.requests:
            request.progress.leave()
            del self.calls[request]

    def finish(self, request: Request, error: EngineError | None) -> None:
        """Take a request that has all its outputs or an error. Any thread may call it, once for each request."""
        self._finished.put((request, error))

    def abandon(self, error: EngineError) -> None:
        """End every call with this error, because the engine computes no more. Any thread may call it."""
        for call in set(self.calls.values()):
            call.loop.call_soon_threadsafe(call.abandon, error)

    def stop(self) -> None:
        """End the thread after it has delivered every finished request."""
        self._finished.put(None)

    def loop(self) -> None:
        """Deliver results until the thread is stopped."""
        while True:
            items = [self._finished.get()]
            while items[-1] is not None and not self._finished.empty():
                items.append(self._finished.get())
            settled: dict[asyncio.AbstractEventLoop, list[Call]] = {}
            for request, error in filter(None, items):
                call = self.calls.get(request)
                if call is None:
                    continue
                call.results[request] = self._result(request) if error is None else error
                if len(call.results) == len(call.requests):
                    settled.setdefault(call.loop, []).append(call)
            for loop, calls in settled.items():
                loop.call_soon_threadsafe(_settle, calls)
            if items[-1] is None:
                return

    def _result(self, request: Request) -> Result:
        if request.verifying:
            return []
        task = TASKS[request.adapter.task]
        outputs = iter([output for output in request.progress.outputs if output is not None])
        predictions = []
        try:
            reader: Any = reader_of(request.adapter, self._reader)
            for rows in request.progress.samples:
                if request.progress.left:
                    return []
                raws = list(islice(outputs, len(rows)))
                predictions.append(task.predict(raws, rows, request.adapter, request.parameters, reader))
            return predictions
        except EngineError as error:
            return error
        except Exception as fault:  # a task's own fault must not end the thread
            return RunnerFault(f"the model's output could not be turned into a prediction: {fault}")
