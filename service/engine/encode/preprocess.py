"""The thread that reads inputs: it turns calls into rows and queues them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from queue import SimpleQueue
from typing import Any

from rootstock.service.engine.core.errors import Draining, EngineError, RunnerFault, TooLarge
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.core.turns.finish_time_queue import FinishTimeQueue
from rootstock.service.engine.core.worker import Worker
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.batcher import Batcher
from rootstock.service.engine.encode.modalities.reader import Reader
from rootstock.service.engine.encode.modalities.text import reader_of
from rootstock.service.engine.encode.sample import Sample
from rootstock.service.engine.encode.size import MAX_NUMBERS, check_answer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.task import Task

_DRAINING = "the server is stopping; send the request to another server"
# One request's rows, input by input.
Rows = list[list[Sample]]
# The characters that one call reads before other calls get their turn: some ten milliseconds.
_SLICE = 2**14
# A turn also ends after this processor time in seconds: a file of some bytes can hold an image of 50 megapixels.
_TURN_SECONDS = 0.05


class _Left(Exception):
    """A call that nobody waits for any more."""


class Preprocessor(Worker):
    """A thread that reads the inputs of requests and admits them to the batcher.

    It calls `finish(request, error)` on refusal.

    Requests that are put in together have the same inputs and parameters. Adapters that read them alike share one
    reading. The requests are admitted all or none, so that they may share a batch, and with at most
    `max_rows` rows. If one error refuses several of them, they share the error object.

    Calls take turns: a long call lets others pass between its rows. A call ends early when nobody waits for it.
    """

    def __init__(
        self,
        reader: Reader,
        batcher: Batcher,
        finish: Callable[[Request, EngineError | None], None],
        observer: Observer,
        max_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("preprocess")
        self._reader = reader
        self._batcher = batcher
        self._finish = finish
        self._observer = observer
        self._max_rows = max_rows
        self._clock = clock
        self._waiting: SimpleQueue[Sequence[Request] | None] = SimpleQueue()
        # The unfinished calls, each with the iterator of its remaining work. Only this thread uses it.
        self._calls: FinishTimeQueue[tuple[Request, Iterator[int]]] = FinishTimeQueue(_SLICE)
        # Guards `closed`, so that nothing enters the queue after the None that ends it.
        self._closing = threading.Lock()
        self.closed = False

    def put(self, requests: Sequence[Request]) -> None:
        """Take requests in. Raise Draining once it is closed."""
        with self._closing:
            self.check()
            self._waiting.put(requests)

    def check(self) -> None:
        """Raise Draining once it is closed."""
        if self.closed:
            raise Draining(_DRAINING)

    def close(self) -> None:
        """Take no more requests. The thread ends after it has read those that it took."""
        with self._closing:
            self.closed = True
            self._waiting.put(None)

    def loop(self) -> None:
        """Read requests until it is closed and none is left."""
        is_open = True
        while is_open or self._calls:
            while is_open and (not self._calls or not self._waiting.empty()):
                requests = self._waiting.get()
                is_open = requests is not None
                if requests is not None:
                    work = self._work(requests)
                    if (cost := next(work, None)) is not None:
                        self._calls.put((requests[0], work), cost)
            if self._calls:
                (first, work), cost = self._calls.get()
                self._proceed(first, work, cost)

    def _proceed(self, first: Request, work: Iterator[int], cost: int) -> None:
        """Do a call's next piece of work, of `cost` characters, and more while its turn lasts.

        Then queue the rest. A turn that took longer than its characters tell counts by its time.
        """
        spent, began, taken = 0, time.thread_time(), 0.0
        while not spent or (spent + cost <= _SLICE and taken < _TURN_SECONDS):
            # Nobody waits for a call once nobody waits for its first request: all its requests are left together.
            if self._is_left(first):
                return
            spent += cost
            try:
                cost = next(work)
            except (StopIteration, _Left):
                return
            taken = time.thread_time() - began
        self._calls.put((first, work), max(cost, int(_SLICE * taken / _TURN_SECONDS)))

    def _is_left(self, request: Request) -> bool:
        return request.progress.left or self._clock() > request.deadline

    def _work(self, requests: Sequence[Request]) -> Iterator[int]:
        """Read the requests and admit them. Yield the effort of each row, in characters, before it is read."""
        known: dict[object, tuple[float, Rows | EngineError, float]] = {}
        sound = []
        for request in requests:
            # A golden input is always one row, also for a task that makes several rows of an input.
            task = TASKS[request.adapter.task]
            encode = Task.encode if request.verifying else type(task).encode
            key = (encode, type(task).read, task.keeps_empty_pair, *self._reading(request))
            if (made := known.get(key)) is None:
                began = self._clock()
                rows = yield from self._encoded(encode, request)
                made = known[key] = began, rows, self._clock()
            began, rows, ended = made
            request.progress.time_preparation(began, ended)
            if isinstance(rows, EngineError):
                self._finish(request, rows)
                continue
            request.progress.prepare(rows)
            sound.append(request)
        if sound:
            self._admit(sound)

    def _reading(self, request: Request) -> tuple[object, ...]:
        """Return what is equal for adapters that read alike. Those with the same tokens share one tokenizer.

        To compare the tokens themselves would take longer than to read a short text.
        """
        adapter = request.adapter
        if adapter.tokenizer is None:
            return (adapter.preprocessing,)
        return replace(adapter.preprocessing, tokens=None), id(adapter.tokenizer)

    def _encoded(
        self, encode: Callable[..., Sequence[Sample] | Iterator[Sample]], request: Request
    ) -> Generator[int, None, Rows | EngineError]:
        task, adapter = TASKS[request.adapter.task], request.adapter
        left = self._most([request])
        rows: Rows = []
        cost = 0
        try:
            own: Any = reader_of(adapter, self._reader)
            reader = own
            for value in request.inputs:
                size = task.effort(value, request.parameters)
                yield size
                if size > _SLICE:
                    reader = own.checked(lambda: self._stop_if_left(request))
                made = encode(task, value, adapter.preprocessing, request.parameters, reader, left)
                rows.append([next(made)] if isinstance(made, Iterator) else list(made))
                if isinstance(made, Iterator):
                    for _ in range(task.readings(request.parameters) - 1):
                        yield size
                        rows[-1].append(next(made))
                left -= sum(row.outputs for row in rows[-1])
                cost += sum(row.cost for row in rows[-1])
                self._batcher.outgrow(request.ticket, cost)
        except EngineError as error:
            self._report(request, error)
            if error.param == "inputs" and self._reader.modality != "text":
                # The input at fault comes after those whose rows are known.
                error.param = f"inputs[{len(rows)}]"
            return error
        except _Left:
            raise
        except Exception as error:  # a reader's own fault must not end the thread
            return RunnerFault.caused("the input could not be read", error)
        return rows

    def _stop_if_left(self, request: Request) -> None:
        if self._is_left(request):
            raise _Left

    def _admit(self, requests: Sequence[Request]) -> None:
        rows = [
            Row(request, i, encoded)
            for request in requests
            for i, encoded in enumerate(chain.from_iterable(request.progress.samples))
        ]
        try:
            size = sum(row.sample.outputs for row in rows)
            if size > (most := self._most(requests)):
                message = f"the inputs become {size} rows; at most {most} in one request; split the request"
                raise TooLarge(message, "inputs")
            check_outputs(rows)
            self._batcher.admit(rows)
        except EngineError as error:
            self._report(requests[0], error)
            for request in requests:
                self._finish(request, error)

    def _report(self, request: Request, error: EngineError) -> None:
        if not request.shadow:
            self._observer.refused(error.code)

    def _most(self, requests: Sequence[Request]) -> int:
        """Return the limit on the rows of these requests.

        It never refuses a golden set for its number of inputs.
        """
        return max(self._max_rows, sum(len(request.inputs) for request in requests))


def check_outputs(rows: Sequence[Row]) -> None:
    """Raise TooLarge if the rows' outputs, or the answer made of them, would take too much memory."""
    numbers = size = 0
    for row in rows:
        adapter, parameters = row.request.adapter, row.request.parameters
        task = TASKS[adapter.task]
        numbers += task.numbers(adapter, row.cost)
        if not row.request.verifying:
            size += row.sample.outputs * task.answer_bytes(adapter, parameters, row.cost)
    if numbers > MAX_NUMBERS:
        raise TooLarge(
            f"the model's outputs for these inputs are {numbers} numbers and the limit for one request is "
            f"{MAX_NUMBERS}; send fewer or shorter inputs",
            "inputs",
        )
    check_answer(size)
