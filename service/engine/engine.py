"""A request's life: resolve, load, tokenise, queue, run, answer.

The event loop only passes requests on: tokenising runs in one thread, the model in another (batcher.py) and
post-processing in a third. Each takes all that has come since its last round, so that under load a hand-over
between threads is paid once for many requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from adapters.spec import Adapter, Array, FoundationSpec
from service.engine.adapter_cache import AdapterCache
from service.engine.batch import Request, Row, Runner
from service.engine.batcher import Batcher, Observer
from service.engine.catalog import FOUNDATION, Catalog, Resolved, foundation_adapter
from service.engine.errors import Draining, EngineError, Expired, InvalidInput, RunnerFault, TooLarge, WrongTask
from service.engine.queue import BatchLimits, Capacity, Queue
from service.engine.slots import Slots
from service.engine.tasks import TASKS
from service.engine.tasks.task import check_call
from service.engine.tokenizer import Input, Tokenizer

_DRAINING = "the server is stopping; send the request to another"


@dataclass(frozen=True)
class EngineLimits:
    """`max_inputs` a request, seconds until a request expires, bytes of adapters in host memory."""

    max_inputs: int = 256
    timeout_s: float = 30.0
    cache_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Answer:
    """One reference's predictions, one an input, in order. Times in milliseconds."""

    resolved: Resolved
    task: str
    predictions: list[Any]
    prompt_tokens: int
    queue_ms: float
    inference_ms: float


@dataclass(eq=False, slots=True)
class _Call:
    """A request under way: who waits for it, on which loop."""

    request: Request
    future: asyncio.Future[list[Any]]
    loop: asyncio.AbstractEventLoop


class Engine:
    """One foundation's queue, batcher, slots and runner. Used from one event loop at a time.

    `start` before the first request, `stop` after the last: it finishes what was admitted.
    """

    def __init__(
        self,
        spec: FoundationSpec,
        runner: Runner,
        tokenizer: Tokenizer,
        catalog: Catalog,
        observer: Observer,
        limits: EngineLimits | None = None,
        capacity: Capacity | None = None,
        batches: BatchLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.runner = runner
        self.limits = limits or EngineLimits()
        self.cache = AdapterCache(self._load, self.limits.cache_bytes)
        self._tokenizer = tokenizer
        self._catalog = catalog
        self._observer = observer
        self._clock = clock
        self._foundation = foundation_adapter(spec)
        self._calls: dict[Request, _Call] = {}
        self._active: Counter[str] = Counter()
        self._idle: dict[str, asyncio.Event] = {}
        self._draining = False
        # Held to look at `_draining` and act on it: nothing is put behind the None that ends the line.
        self._door = threading.Lock()
        self._untokenised: SimpleQueue[Request | None] = SimpleQueue()
        self._unfinished: SimpleQueue[tuple[Request, EngineError | None] | None] = SimpleQueue()
        queue = Queue(capacity or Capacity(), batches or BatchLimits())
        slots = Slots(runner, self._foundation)
        self.slots = slots
        finish: Callable[[Request, EngineError | None], None] = lambda r, e: self._unfinished.put((r, e))  # noqa: E731
        self.batcher = Batcher(queue, slots, runner, tokenizer.pad_id, finish, observer, clock)
        self._tokenising = threading.Thread(target=self._tokenise_all, name="rootstock-tokenise", daemon=True)
        self._finishing = threading.Thread(target=self._finish_all, name="rootstock-finish", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        for thread in (self._tokenising, self.batcher, self._finishing):
            thread.start()

    def stop(self) -> None:
        """Admit nothing more, finish what was admitted, end the threads. Blocks; call it in a thread."""
        with self._door:
            self._draining = True
            self._untokenised.put(None)
        self._tokenising.join()
        self.batcher.stop()
        self.batcher.join()
        self._unfinished.put(None)
        self._finishing.join()

    @property
    def alive(self) -> bool:
        """Whether all three threads run and requests are admitted."""
        threads = (self._tokenising, self.batcher, self._finishing)
        return not self._draining and all(t.is_alive() for t in threads)

    async def predict(
        self,
        reference: str,
        inputs: Sequence[Input],
        parameters: Mapping[str, Any],
        task: str | None = None,
        tenant: str = "",
    ) -> Answer:
        """The predictions of one reference for these inputs.

        `task`: WrongTask unless the adapter answers it. Cancelling the call cancels the request. Raises
        EngineError, or what the catalog raises for a reference that it does not know.
        """
        self._check_size(inputs)
        resolved = self._resolve(reference)
        with self._holding(resolved.digest):
            adapter = await self._adapter(resolved.digest)
            if task is not None and adapter.task != task:
                raise WrongTask(f"{reference!r} answers {adapter.task}; this route serves {task}", "model")
            check_call(TASKS[adapter.task], list(inputs), parameters)
            request = self._request(adapter, inputs, parameters, tenant)
            predictions = await self._run(request)
        started, finished = request.started or 0.0, request.finished or 0.0
        return Answer(
            resolved=resolved,
            task=adapter.task,
            predictions=predictions,
            prompt_tokens=request.tokens,
            queue_ms=round((started - request.admitted) * 1e3, 3),
            inference_ms=round((finished - started) * 1e3, 3),
        )

    async def replay(self, adapter: Adapter, inputs: Sequence[Input]) -> list[Array]:
        """The raw head outputs of an adapter that is not published, through the same path at lowest priority."""
        request = self._request(adapter, inputs, {"truncation": True}, "")
        request.verifying = True
        request.deadline = request.admitted + 10 * self.limits.timeout_s
        with self._holding(adapter.digest):
            await asyncio.to_thread(self.runner.warm, adapter)
            await self._run(request)
        return [o for o in request.outputs if o is not None]

    async def forget(self, digest: str) -> None:
        """Wait until no request holds the adapter, then free its slot and memory."""
        while self._active[digest]:
            await self._idle.setdefault(digest, asyncio.Event()).wait()
        self.cache.drop(digest)
        await asyncio.to_thread(self.batcher.drop, digest)

    def residency(self, digest: str) -> str:
        """Where an adapter is: "slot", "memory" or "store"."""
        if digest in self.slots.resident():
            return "slot"
        return "memory" if digest in self.cache else "store"

    def _check_size(self, inputs: Sequence[Input]) -> None:
        if self._draining:
            raise Draining(_DRAINING)
        if not inputs:
            raise InvalidInput("inputs is empty; give a string or a list of at least one", "inputs")
        if len(inputs) > self.limits.max_inputs:
            raise TooLarge(f"{len(inputs)} inputs; at most {self.limits.max_inputs} a request", "inputs")
        try:
            self.batcher.check(len(inputs), self._untokenised.qsize())
        except EngineError as error:
            self._observer.refused(error.code)
            raise

    def _load(self, digest: str) -> Adapter:
        """In a loading thread, so that what is slow about an adapter is done before it reaches the batcher."""
        adapter = self._catalog.load(digest)
        self.runner.warm(adapter)
        return adapter

    def _resolve(self, reference: str) -> Resolved:
        if reference == FOUNDATION:
            return Resolved(FOUNDATION, None, self.spec.fingerprint)
        return self._catalog.resolve(reference)

    async def _adapter(self, digest: str) -> Adapter:
        if digest == self.spec.fingerprint:
            return self._foundation
        return self.cache.peek(digest) or await self.cache.get(digest)

    @contextmanager
    def _holding(self, digest: str) -> Iterator[None]:
        """A request needs this adapter, from the moment its reference is resolved: `forget` waits for it."""
        self._active[digest] += 1
        try:
            yield
        finally:
            self._active[digest] -= 1
            if not self._active[digest]:
                del self._active[digest]
                if (idle := self._idle.pop(digest, None)) is not None:
                    idle.set()

    def _request(
        self, adapter: Adapter, inputs: Sequence[Input], parameters: Mapping[str, Any], tenant: str
    ) -> Request:
        now = self._clock()
        return Request(adapter, inputs, parameters, now + self.limits.timeout_s, now, tenant)

    async def _run(self, request: Request) -> list[Any]:
        loop = asyncio.get_running_loop()
        call = _Call(request, loop.create_future(), loop)
        with self._door:
            if self._draining:
                raise Draining(_DRAINING)
            self._calls[request] = call
            self._untokenised.put(request)
        timer = loop.call_later(max(0.0, request.deadline - self._clock()), self._expire, call)
        try:
            return await call.future
        finally:
            request.gone = True
            timer.cancel()
            del self._calls[request]
            if request.finished is None:
                self.batcher.leave()

    def _expire(self, call: _Call) -> None:
        call.request.gone = True
        if not call.future.done():
            waited = self._clock() - call.request.admitted
            call.future.set_exception(Expired(f"not answered within {waited:.1f} s; try again later"))

    def _tokenise_all(self) -> None:
        while (request := self._untokenised.get()) is not None:
            if request.gone:
                continue
            try:
                self._tokenise(request)
            except EngineError as error:
                self._observer.refused(error.code)
                self._unfinished.put((request, error))
            except Exception as error:  # a tokenizer's own fault must not end the thread
                self._unfinished.put((request, RunnerFault(f"the input could not be tokenised: {error}")))

    def _tokenise(self, request: Request) -> None:
        truncate = bool(request.parameters.get("truncation", False))
        encode = self._tokenizer.encode
        request.encoded = [encode(v, request.adapter.preprocessing, truncate) for v in request.inputs]
        request.tokens = sum(len(e.ids) for e in request.encoded)
        request.outputs = [None] * len(request.encoded)
        self.batcher.admit([Row(request, i, e) for i, e in enumerate(request.encoded)])

    def _finish_all(self) -> None:
        while (item := self._unfinished.get()) is not None:
            request, error = item
            predictions: list[Any] = []
            if error is None and not request.verifying:
                try:
                    predictions = self._predictions(request)
                except Exception as fault:  # a task's own fault must not end the thread
                    error = RunnerFault(f"the output could not be read: {fault}")
            call = self._calls.get(request)
            if call is not None:
                call.loop.call_soon_threadsafe(_settle, call.future, predictions, error)

    def _predictions(self, request: Request) -> list[Any]:
        task = TASKS[request.adapter.task]
        return [
            task.predict(output, encoded, request.adapter, request.parameters, self._tokenizer)
            for output, encoded in zip(request.outputs, request.encoded, strict=True)
            if output is not None
        ]


def _settle(future: asyncio.Future[list[Any]], predictions: list[Any], error: EngineError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(predictions)
    else:
        future.set_exception(error)
