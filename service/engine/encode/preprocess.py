"""The thread that tokenises: calls in, rows in the queue out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain
from queue import SimpleQueue

from rootstock.service.engine.core.errors import Draining, EngineError, RunnerFault, TooLarge
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.core.worker import Worker
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.batcher import Batcher
from rootstock.service.engine.encode.modalities.text import TextSample, Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.task import Task

_DRAINING = "the server is stopping; send the request to another"
# One request's rows, input by input.
Rows = list[list[TextSample]]


class Preprocessor(Worker):
    """Tokenises what it is given and admits it to the batcher; `finish(request, error)` for what it refuses.

    Requests that are put together have the same inputs and parameters. What their adapters tokenise alike is
    tokenised once and shared; they are admitted all or none, so that they may share a batch, and with `max_rows`
    rows at most. One error for several of them is one object.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        batcher: Batcher,
        finish: Callable[[Request, EngineError | None], None],
        observer: Observer,
        max_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("intake")
        self._tokenizer = tokenizer
        self._batcher = batcher
        self._finish = finish
        self._observer = observer
        self._max_rows = max_rows
        self._clock = clock
        self._waiting: SimpleQueue[Sequence[Request] | None] = SimpleQueue()
        # Held to look at `closed` and act on it: nothing is put behind the None that ends the line.
        self._door = threading.Lock()
        self.closed = False

    def put(self, requests: Sequence[Request]) -> None:
        """Take requests in; Draining once it is closed."""
        with self._door:
            self.check()
            self._waiting.put(requests)

    def check(self) -> None:
        """Draining once it is closed."""
        if self.closed:
            raise Draining(_DRAINING)

    def close(self) -> None:
        """Take nothing more; the thread ends once all that was taken is tokenised."""
        with self._door:
            self.closed = True
            self._waiting.put(None)

    def loop(self) -> None:
        """Tokenise what is put in until the intake is closed."""
        while (requests := self._waiting.get()) is not None:
            # One is gone when all are: they are left together.
            if not requests[0].progress.left:
                self._take(requests)

    def _take(self, requests: Sequence[Request]) -> None:
        known: dict[object, tuple[float, Rows | EngineError, float]] = {}
        sound = []
        for request in requests:
            # A golden input is one row, whatever the task makes of its inputs.
            encode = Task.encode if request.verifying else type(TASKS[request.adapter.task]).encode
            alike = (encode, request.adapter.preprocessing)
            if alike not in known:
                known[alike] = self._clock(), self._encoded(encode, request), self._clock()
            began, rows, ended = known[alike]
            request.progress.time_preparation(began, ended)
            if isinstance(rows, EngineError):
                self._finish(request, rows)
                continue
            request.progress.prepare(rows)
            sound.append(request)
        if sound:
            self._admit(sound)

    def _encoded(self, encode: Callable[..., list[TextSample]], request: Request) -> Rows | EngineError:
        task, adapter = TASKS[request.adapter.task], request.adapter
        left = self._most([request])
        rows: Rows = []
        try:
            for value in request.inputs:
                rows.append(encode(task, value, adapter.preprocessing, request.parameters, self._tokenizer, left))
                left -= sum(row.outputs for row in rows[-1])
        except EngineError as error:
            self._observer.refused(error.code)
            return error
        except Exception as error:  # a tokenizer's own fault must not end the thread
            return RunnerFault(f"the input could not be tokenised: {error}")
        return rows

    def _admit(self, requests: Sequence[Request]) -> None:
        rows = [
            Row(request, i, encoded)
            for request in requests
            for i, encoded in enumerate(chain.from_iterable(request.progress.samples))
        ]
        try:
            size = sum(row.sample.outputs for row in rows)
            if size > (most := self._most(requests)):
                raise TooLarge(f"the inputs become {size} rows; at most {most} a request", "inputs")
            self._batcher.admit(rows)
        except EngineError as error:
            self._observer.refused(error.code)
            for request in requests:
                self._finish(request, error)

    def _most(self, requests: Sequence[Request]) -> int:
        """The limit is on what inputs become, not on a golden set's inputs."""
        return max(self._max_rows, sum(len(request.inputs) for request in requests))
