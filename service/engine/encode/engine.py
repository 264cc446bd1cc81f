"""Take a request through its life: resolve, load, read, queue, run, answer.

The event loop only passes requests on. One thread reads the inputs (preprocess.py), another runs the model
(batcher.py) and a third post-processes (postprocess.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from rootstock.adapters.spec import Adapter, Array, FoundationSpec
from rootstock.service.engine.core.admission import Admission, Capacity, Ticket
from rootstock.service.engine.core.answer import Answer, RequestRecord
from rootstock.service.engine.core.arbiter import Arbiter
from rootstock.service.engine.core.catalog import (
    FOUNDATION,
    Catalog,
    ResolvedReference,
    own_adapters,
    resolve_own,
)
from rootstock.service.engine.core.composition import Wanted
from rootstock.service.engine.core.errors import (
    EngineError,
    Expired,
    InvalidInput,
    Overloaded,
    RunnerFault,
    TooLarge,
    WrongTask,
)
from rootstock.service.engine.core.observer import Observer, Observers, RefusalReport
from rootstock.service.engine.core.request import DEFAULT_OPTIONS, Progress, Request, RequestOptions
from rootstock.service.engine.core.residency import Residency
from rootstock.service.engine.core.slots import Slots
from rootstock.service.engine.encode.batch import Encoder
from rootstock.service.engine.encode.batcher import Batcher
from rootstock.service.engine.encode.modalities.reader import Reader
from rootstock.service.engine.encode.modalities.text import with_tokenizer
from rootstock.service.engine.encode.packing import BatchLimits
from rootstock.service.engine.encode.postprocess import Call, Postprocessor, Result
from rootstock.service.engine.encode.preprocess import Preprocessor
from rootstock.service.engine.encode.queue import Queue
from rootstock.service.engine.encode.size import check_answer, check_parameters, check_total
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.task import check_call


@dataclass(frozen=True)
class EngineLimits:
    """Limits of an engine: inputs in a request, seconds until it expires, bytes of adapters in host memory.

    `max_rank` is the largest rank of a composition at a site.
    """

    max_inputs: int = 256
    timeout_s: float = 30.0
    cache_bytes: int = 512 * 2**20
    max_rank: int = 64


class Engine:
    """One foundation's queue, batcher, slots and runner. Used from one event loop at a time.

    Call `start` before the first request and `stop` after the last one; `stop` finishes admitted requests. Both
    `name` and `foundation` are references to the foundation itself. Engines of one process share an `arbiter`,
    which divides the cores between them.
    """

    def __init__(
        self,
        spec: FoundationSpec,
        runner: Encoder,
        reader: Reader,
        catalog: Catalog,
        observer: Observer,
        limits: EngineLimits | None = None,
        capacity: Capacity | None = None,
        batches: BatchLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        name: str = FOUNDATION,
        arbiter: Arbiter | None = None,
    ) -> None:
        self.spec = spec
        self.name = name
        self.runner = runner
        self.reader = reader
        self.limits = limits or EngineLimits()
        self._catalog = catalog
        self._observer = observer = Observers(observer)
        self._refusals = RefusalReport(observer)
        self._clock = clock
        self._own = own_adapters(spec)
        foundation = next(iter(self._own.values()))
        self.admission = Admission(capacity or Capacity())
        queue = Queue(batches or BatchLimits())
        self.slots = Slots(runner, foundation, observer)
        self.postprocessor = Postprocessor(reader)
        finish = self.postprocessor.finish
        self.batcher = Batcher(
            queue,
            self.slots,
            runner,
            reader.collate,
            finish,
            self.admission,
            observer,
            clock,
            nullcontext if arbiter is None else partial(arbiter.turn, name),
        )
        self.preprocessor = Preprocessor(reader, self.batcher, finish, observer, self.limits.max_inputs, clock)
        self.adapters = Residency(
            foundation,
            self._load,
            self.limits.cache_bytes,
            self.slots,
            self.batcher.drop,
            observer,
            runner.warm,
            self.limits.max_rank,
        )
        self.cache = self.adapters.cache
        self.fallen = self.started = False

    def start(self) -> None:
        """Start the threads."""
        self.started = True
        for thread in (self.preprocessor, self.batcher, self.postprocessor):
            thread.fell = self._fall
            thread.start()

    def stop(self) -> None:
        """Admit nothing more, finish admitted requests and end the threads. It blocks, so call it in a thread."""
        self.preprocessor.close()
        self.preprocessor.join()
        self.batcher.stop()
        self.batcher.join()
        self.postprocessor.stop()
        self.postprocessor.join()
        self.adapters.close()

    @property
    def alive(self) -> bool:
        """Tell whether all three threads run and requests are admitted."""
        threads = (self.preprocessor, self.batcher, self.postprocessor)
        return not self.preprocessor.closed and all(t.is_alive() for t in threads)

    async def predict(
        self,
        reference: str,
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        task: str | None = None,
        options: RequestOptions = DEFAULT_OPTIONS,
    ) -> Answer:
        """Return the predictions of one reference for these inputs.

        `task` chooses one of the foundation's tasks. Raise WrongTask if the reference does not support it,
        another EngineError if the request fails, or the catalog's own error for a reference that it does not
        know. Cancelling the call cancels the request.
        """
        (answer,) = await self.predict_many([reference], inputs, parameters, task, options)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def predict_many(
        self,
        references: Sequence[str],
        inputs: Sequence[Any],
        parameters: Mapping[str, Any],
        task: str | None = None,
        options: RequestOptions = DEFAULT_OPTIONS,
        targets: Mapping[str, ResolvedReference] | None = None,
    ) -> list[Answer | Exception]:
        """Return each reference's predictions for the same inputs, in order, or the error of one that failed.

        The inputs are read once. The references are admitted and answered together, so that rows of one
        input may share a batch. `targets` holds the references that the caller has resolved already. The other
        arguments are those of `predict`. Raise EngineError for a failure that concerns all references.
        """
        with self._reporting(options):
            self._check_size(len(inputs), len(references))
            check_parameters(parameters)
            self.reader.check(inputs)
        arrived = self._clock()
        requests: dict[int, Request] = {}
        # All fan-outs share one claim, because a client could vary their lists of references without end.
        claimant = options.tenant, references[0] if len(references) == 1 else None
        with self._admitted(inputs, len(references), claimant, options) as ticket:
            resolutions, outcomes = self._resolve_all(references, task, targets or {})
            wanted = [resolved.wanted for resolved in resolutions.values()]
            deadline = options.deadline(arrived, self.limits.timeout_s)
            with self.adapters.hold(wanted):
                adapters = await self._adapters(wanted, arrived, deadline)
                ready = self._clock()
                for i, resolved in resolutions.items():
                    adapter = adapters[resolved.digest]
                    if isinstance(adapter, Exception):
                        outcomes[i] = adapter
                        continue
                    try:
                        _check(references[i], adapter, inputs, parameters, task)
                    except EngineError as error:
                        outcomes[i] = error
                    else:
                        requests[i] = Request(
                            adapter,
                            inputs,
                            parameters,
                            deadline,
                            arrived,
                            options.tenant,
                            options.priority,
                            shadow=options.shadow,
                            ticket=ticket,
                            progress=Progress(ready),
                            flow=resolved.flow,
                        )
                with self._reporting(options):
                    self._weigh(list(requests.values()), ticket)
                results = await self._run(list(requests.values())) if requests else {}
        ended = self._clock()
        for i, request in requests.items():
            outcomes[i] = self._end(
                RequestRecord(references[i], resolutions[i], request, ended), results[request]
            )
        return [outcomes[i] for i in range(len(references))]

    async def replay(self, adapter: Adapter, inputs: Sequence[Any]) -> list[Array]:
        """Return the raw head outputs of an unpublished adapter.

        It takes the serving path at the lowest priority.
        """
        self.reader.check(inputs)
        with self.adapters.hold([adapter.digest]), self._admitted(inputs, 1) as ticket:
            now = self._clock()
            deadline = now + 10 * self.limits.timeout_s
            request = Request(
                adapter,
                inputs,
                {"truncation": True},
                deadline,
                now,
                verifying=True,
                ticket=ticket,
                progress=Progress(now),
            )
            await asyncio.to_thread(self.runner.warm, adapter)
            result = (await self._run([request]))[request]
        if isinstance(result, EngineError):
            raise result
        return [o for o in request.progress.outputs if o is not None]

    async def forget(self, digest: str) -> None:
        """Wait until no request holds the adapter, then free its slot and memory."""
        await self.adapters.forget(digest)

    def place(self, adapter: Adapter) -> None:
        """Put an adapter into a slot soon, without waiting for its first request."""
        self.batcher.place(adapter)

    def residency(self, digest: str) -> str:
        """Return where an adapter is: "slot", "memory" or "store"."""
        return self.adapters.residency(digest)

    def check_size(self, inputs: int, references: int) -> None:
        """Raise InvalidInput for no inputs or no references, TooLarge for too many, Draining during a stop."""
        with self._refusals:
            self._check_size(inputs, references)

    def _check_size(self, inputs: int, references: int) -> None:
        self.preprocessor.check()
        if not inputs:
            raise InvalidInput("inputs is empty; give a string or a list of at least one", "inputs")
        if not references:
            raise InvalidInput("models is empty; give at least one reference", "models")
        if inputs * references > (most := self.limits.max_inputs):
            if references == 1:
                raise TooLarge(f"{inputs} inputs; at most {most} in one request; split the request", "inputs")
            message = f"{inputs} inputs for {references} models; at most {most} together; split the request"
            raise TooLarge(message, "models")

    def _weigh(self, requests: Sequence[Request], ticket: Ticket) -> None:
        """Refuse requests that are too large for their tasks, and count each input once for each of its rows."""
        rows = size = total = times = 0
        # All requests of a call have the same inputs and parameters.
        readings = characters = 0
        last = None
        for request in requests:
            task, parameters = TASKS[request.adapter.task], request.parameters
            if task is not last:
                readings = task.readings(parameters)
                characters = sum(task.effort(value, parameters) for value in request.inputs)
                last = task
            times += readings
            rows += (of_request := len(request.inputs) * readings)
            size += of_request * task.answer_bytes(request.adapter, parameters, 0)
            total += readings * characters
        if rows > (most := self.limits.max_inputs):
            message = f"the inputs become {rows} rows; at most {most} in one request; split the request"
            raise TooLarge(message, "inputs")
        check_total(total)
        check_answer(size)
        if times > len(requests):
            tokens = times * self.reader.tokens(requests[0].inputs)
            self.admission.settle(ticket, rows, min(tokens, self.admission.capacity.tokens))

    def _reporting(self, options: RequestOptions) -> AbstractContextManager[None]:
        """Return a context that reports refusals, unless they are of a shadow."""
        return nullcontext() if options.shadow else self._refusals

    @contextmanager
    def _admitted(
        self,
        inputs: Sequence[Any],
        references: int,
        claimant: Hashable = None,
        options: RequestOptions = DEFAULT_OPTIONS,
    ) -> Iterator[Ticket]:
        """Admit a call, and count it as waiting until its rows run or nobody waits for it.

        A shadow does not count, so that it takes no room from a request.
        """
        if options.shadow:
            self.admission.check_idle()
            yield Ticket()
            return
        tokens = references * self.reader.tokens(inputs)
        with self._refusals:
            ticket = self.admission.enter(len(inputs) * references, tokens, claimant)
        try:
            yield ticket
        finally:
            self.admission.leave(ticket)

    def _end(self, record: RequestRecord, result: Result) -> Answer | EngineError:
        if isinstance(result, EngineError):
            record.error = result
        if not record.request.shadow:
            self._observer.served(record)
        return result if isinstance(result, EngineError) else record.answer(result)

    def _load(self, digest: str) -> Adapter:
        """Load and warm an adapter in a loading thread, so that the batcher has no slow work left."""
        began, ok = time.perf_counter(), False
        try:
            own = next((adapter for adapter in self._own.values() if adapter.digest == digest), None)
            adapter = own or self.equipped(self._catalog.load(digest))
            self.runner.warm(adapter)
            ok = True
        finally:
            self._observer.loaded("memory", time.perf_counter() - began, ok)
        return adapter

    def equipped(self, adapter: Adapter) -> Adapter:
        """Return an adapter with all that it needs to be served: a tokenizer, if it brings tokens.

        Raise Rejected (check "schema") if its tokens do not fit the foundation's tokenizer.
        """
        return with_tokenizer(adapter, self.reader)

    def _resolve_all(
        self, references: Sequence[str], task: str | None, targets: Mapping[str, ResolvedReference]
    ) -> tuple[dict[int, ResolvedReference], dict[int, Answer | Exception]]:
        """Return the resolution, or the error, of each reference by its index."""
        resolutions: dict[int, ResolvedReference] = {}
        outcomes: dict[int, Answer | Exception] = {}
        for i, reference in enumerate(references):
            try:
                resolutions[i] = targets.get(reference) or self._resolve(reference, task)
            except Exception as error:  # the catalog's own error: it fails this reference alone
                outcomes[i] = error
        return resolutions, outcomes

    def _resolve(self, reference: str, task: str | None) -> ResolvedReference:
        if reference not in (FOUNDATION, self.name):
            return self._catalog.resolve(reference)
        return resolve_own(self.spec, self._own, task, reference)

    async def _adapters(
        self, wanted: Sequence[Wanted], arrived: float, deadline: float
    ) -> dict[str, Adapter | Exception]:
        try:
            return await self.adapters.get(wanted, deadline - self._clock())
        except TimeoutError:
            raise self._expired(arrived) from None

    def _expired(self, arrived: float) -> Expired:
        seconds = self._clock() - arrived
        return Expired(f"the request was not answered within {seconds:.1f} s; try again later")

    async def _run(self, requests: Sequence[Request]) -> dict[Request, Result]:
        """Return the result of each request. Raise the error if all were refused together."""
        call = self.postprocessor.expect(requests)
        timer: asyncio.TimerHandle | None = None
        try:
            self.preprocessor.put(requests)
            timer = call.loop.call_later(max(0.0, requests[0].deadline - self._clock()), self._expire, call)
            await call.future
        finally:
            if timer is not None:
                timer.cancel()
            self.postprocessor.leave(call)
            if any(request.progress.finished is None for request in requests):
                self.batcher.leave()
        first = call.results[requests[0]]
        if isinstance(first, Overloaded | TooLarge) and all(r is first for r in call.results.values()):
            raise first
        return call.results

    def _expire(self, call: Call) -> None:
        call.abandon(self._expired(call.requests[0].arrived))

    def _fall(self, fault: BaseException) -> None:
        """Admit nothing more after a thread failed, and fail every call that waits."""
        self.fallen = True
        self.preprocessor.close()
        self.postprocessor.abandon(RunnerFault(f"the engine has failed: {type(fault).__name__}: {fault}"))


def _check(
    reference: str, adapter: Adapter, inputs: Sequence[Any], parameters: Mapping[str, Any], task: str | None
) -> None:
    if task is not None and adapter.task != task:
        raise WrongTask(reference, adapter.task, task)
    check_call(TASKS[adapter.task], inputs, parameters)
    TASKS[adapter.task].check_adapter(adapter, parameters)
