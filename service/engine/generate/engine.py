"""Take a request for text through its life: resolve, load, tokenise, queue, decode, stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from rootstock.adapters.spec import Adapter, Array, FoundationSpec
from rootstock.service.engine.core.admission import Admission, Capacity, Ticket
from rootstock.service.engine.core.arbiter import Arbiter
from rootstock.service.engine.core.catalog import FOUNDATION, Catalog, ResolvedReference, generation_adapter
from rootstock.service.engine.core.errors import (
    Draining,
    EngineError,
    Expired,
    InvalidInput,
    InvalidParameter,
    RunnerFault,
    WrongTask,
)
from rootstock.service.engine.core.observer import GenerationStats, Observer, Observers, RefusalReport
from rootstock.service.engine.core.request import DEFAULT_OPTIONS, RequestOptions
from rootstock.service.engine.core.residency import Residency
from rootstock.service.engine.core.slots import Slots
from rootstock.service.engine.generate.answer_form import AnswerForm
from rootstock.service.engine.generate.constraint.forced_tokens import ForcedTokens
from rootstock.service.engine.generate.constraint.grammar import Grammar
from rootstock.service.engine.generate.constraint.grammar_compiler import GrammarCompiler
from rootstock.service.engine.generate.constraint.token_constraint import TokenConstraint
from rootstock.service.engine.generate.decode_worker import DecodeWorker
from rootstock.service.engine.generate.decoder import Decoder
from rootstock.service.engine.generate.prompt import (
    Chat,
    Prompt,
    PromptTokenizer,
    characters,
    check_size,
)
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.generate.sequence import TextSequence
from rootstock.service.engine.generate.stream import AnswerTokens, TextStream

_CHARACTERS_A_TOKEN = 4
# Prompts of a golden set that are replayed at once. More would slow the steps of other streams.
_REPLAYED = 4
_GREEDY = SamplingOptions(temperature=0.0, logprobs=0, ignore_eos=True)


@dataclass(frozen=True)
class GenerationLimits:
    """Limits of generation: answers of a call, seconds until it expires, bytes of adapters in host memory.

    `max_rank` is the largest rank of a composition at a site.
    """

    max_answers: int = 16
    timeout_s: float = 300.0
    cache_bytes: int = 512 * 2**20
    max_rank: int = 64


class GenerationEngine:
    """One foundation's sequences, slots and decoder. Used from one event loop at a time.

    Call `start` before the first request and `stop` after the last one; `stop` finishes admitted requests. Both
    `name` and `foundation` are references to the foundation itself. Engines of one process share an `arbiter`,
    which divides the cores between them.
    """

    def __init__(
        self,
        spec: FoundationSpec,
        decoder: Decoder,
        tokenizer: PromptTokenizer,
        catalog: Catalog,
        observer: Observer,
        limits: GenerationLimits | None = None,
        capacity: Capacity | None = None,
        steps: StepLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        name: str = FOUNDATION,
        arbiter: Arbiter | None = None,
    ) -> None:
        if (language := spec.language_model) is None:
            raise ValueError(f"{spec.name} has no language-model head, so it cannot generate")
        self.spec = spec
        self.name = name
        self.runner = decoder
        self.limits = limits or GenerationLimits()
        self._form = AnswerForm(spec, language, decoder.cache.capacity)
        self._tokenizer = tokenizer
        self._catalog = catalog
        self._observer = observer = Observers(observer)
        self._refusals = RefusalReport(observer)
        self._clock = clock
        self._own = generation_adapter(spec, language)
        self._grammars = GrammarCompiler(tokenizer.to_json, language.vocabulary, language.stop_ids)
        self.admission = Admission(capacity or Capacity())
        self.slots = Slots(decoder, self._own, observer)
        self.worker = DecodeWorker(
            self.slots,
            decoder,
            steps or StepLimits(),
            self.admission,
            observer,
            clock,
            # A foundation's engine for one pass takes turns under the name alone.
            nullcontext if arbiter is None else partial(arbiter.turn, f"{name}, generation"),
            2 * spec.max_tokens if self._form.rewrites else spec.max_tokens,
        )
        self.adapters = Residency(
            self._own,
            self._load,
            self.limits.cache_bytes,
            self.slots,
            self.worker.drop,
            observer,
            decoder.warm,
            self.limits.max_rank,
        )
        self.cache = self.adapters.cache
        self.fallen = self.started = False
        self._closed = False
        self._streams: set[TextStream] = set()

    def start(self) -> None:
        """Start the thread."""
        self.started = True
        self.worker.fell = self._fall
        self.worker.start()

    def stop(self) -> None:
        """Admit nothing more, finish admitted requests and end the thread. It blocks, so call it in a thread."""
        self._closed = True
        self.worker.stop()
        self.worker.join()
        self.adapters.close()

    @property
    def alive(self) -> bool:
        """Tell whether the thread runs and requests are admitted."""
        return not self._closed and self.worker.is_alive()

    @asynccontextmanager
    async def generate(
        self,
        reference: str,
        prompt: Prompt,
        sampling: SamplingOptions,
        answers: int = 1,
        options: RequestOptions = DEFAULT_OPTIONS,
        target: ResolvedReference | None = None,
        grammar: Grammar | None = None,
    ) -> AsyncIterator[TextStream]:
        """Begin `answers` answers to one prompt, and yield the stream of their pieces.

        Leaving the context cancels what is not complete. `target` is the reference's resolution, if the caller
        knows it. With a grammar, an answer that ends by itself is one of the texts that it allows.

        Raise EngineError for a request that is refused, or the catalog's own error for an unknown reference.
        """
        with self._refusals:
            self._check(prompt, sampling, answers)
            if grammar is not None:
                self._form.check_grammar(grammar)
        arrived = self._clock()
        deadline = options.deadline(arrived, self.limits.timeout_s)
        resolved = target or self.resolve(reference)
        with self.adapters.hold([resolved.wanted]):
            # Several references may mean one model. All compositions share one claim, because a client could vary
            # their weights without end.
            claimant = options.tenant, resolved.name if resolved.parts else resolved.digest
            estimate = min(1 + characters(prompt) // _CHARACTERS_A_TOKEN, self.spec.max_tokens)
            with self._admitted(answers, estimate, claimant) as ticket:
                adapter = await self._adapter(reference, resolved, deadline)
                ids = await self._tokens(prompt, adapter, deadline)
                with self._refusals:
                    source, start = self._form.split(ids)
                    sampling = self._form.fit(source, start, adapter, sampling, answers)
                    self.admission.settle(ticket, answers, answers * (len(source) + len(start)))
                constraints = await self._constraints(grammar, sampling, answers, deadline)
                tokens = self._answer_tokens(adapter)
                stream = TextStream(resolved, len(ids), tokens, answers, sampling.stop, self._clock)
                stream.sequences = [
                    TextSequence(
                        adapter,
                        start,
                        self._form.sampler(_nth(sampling, i), start, adapter, constraints[i]),
                        stream.receiver(i),
                        arrived,
                        deadline,
                        source,
                        options.tenant,
                        options.priority,
                        ticket=ticket,
                        flow=resolved.flow,
                    )
                    for i in range(answers)
                ]
                try:
                    with self._followed(stream, deadline):
                        yield stream
                finally:
                    self._observer.generated(_stats(stream, arrived, self._clock()))

    async def replay(
        self,
        adapter: Adapter,
        prompts: Sequence[str],
        counts: Sequence[int],
        forced: Sequence[Sequence[int]] | None = None,
    ) -> list[Array]:
        """Return for each prompt the greedy tokens and their log-probabilities: (count, 2).

        With `forced`, each answer has these tokens instead. An unpublished adapter takes the serving path at the
        lowest priority, a few prompts at once.
        """
        turns = asyncio.Semaphore(_REPLAYED)

        async def replayed(prompt: str, count: int, tokens: Sequence[int] | None) -> Array:
            async with turns:
                return await self._replay_one(adapter, prompt, count, tokens)

        given: Sequence[Sequence[int] | None] = forced or [None] * len(prompts)
        tasks = [asyncio.create_task(replayed(*one)) for one in zip(prompts, counts, given, strict=True)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _replay_one(self, adapter: Adapter, prompt: str, count: int, forced: Sequence[int] | None) -> Array:
        now = self._clock()
        deadline = now + self.limits.timeout_s
        with self.adapters.hold([adapter.digest]):
            ids = await self._tokens(prompt, adapter, deadline)
            source, start = self._form.split(ids)
            sampling = self._form.fit(source, start, adapter, replace(_GREEDY, max_tokens=count), 1)
            with self._admitted(1, len(source) + len(start), None) as ticket:
                resolved = ResolvedReference("", None, adapter.digest)
                stream = TextStream(resolved, len(ids), self._answer_tokens(adapter), 1, (), self._clock)
                vocabulary = self._form.vocabulary_of(adapter)
                constraint = None if forced is None else ForcedTokens(forced, vocabulary)
                sampler = self._form.sampler(sampling, start, adapter, constraint)
                stream.sequences = [
                    TextSequence(
                        adapter, start, sampler, stream.receiver(0), now, deadline, source,
                        priority="low", verifying=True, ticket=ticket,
                    )
                ]  # fmt: skip
                with self._followed(stream, deadline):
                    pieces = [piece async for piece in stream]
        rows = [(piece.choice.token, piece.choice.logprob) for piece in pieces if piece.choice is not None]
        return np.asarray(rows, np.float32)

    async def check_template(self, adapter: Adapter) -> None:
        """Raise Rejected (check "template") if the adapter has a chat template that cannot be used."""
        await self.tokenizer_of(adapter).check_template(adapter.prompting)

    async def forget(self, digest: str) -> None:
        """Wait until no request holds the adapter, then free its slot and memory."""
        await self.adapters.forget(digest)

    def place(self, adapter: Adapter) -> None:
        """Put an adapter into a slot soon, without waiting for its first request."""
        self.worker.place(adapter)

    def residency(self, digest: str) -> str:
        """Return where an adapter is: "slot", "memory" or "store"."""
        return self.adapters.residency(digest)

    def _answer_tokens(self, adapter: Adapter) -> AnswerTokens:
        return AnswerTokens(self.tokenizer_of(adapter), self._form.stop_ids_of(adapter))

    def tokenizer_of(self, adapter: Adapter) -> PromptTokenizer:
        """Return the tokenizer of an adapter: its own if it brings tokens, else the foundation's.

        Raise RunnerFault for an adapter that brings tokens and is not `equipped`.
        """
        if isinstance(adapter.tokenizer, PromptTokenizer):
            return adapter.tokenizer
        if adapter.preprocessing.tokens:
            raise RunnerFault("the adapter brings tokens, and its tokenizer was not made when it was loaded")
        return self._tokenizer

    @contextmanager
    def _followed(self, stream: TextStream, deadline: float) -> Iterator[None]:
        """Decode the stream's sequences until its end; then free what they hold."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(max(0.0, deadline - self._clock()), stream.fail, self._expired())
        self._streams.add(stream)
        try:
            self.worker.admit(stream.sequences)
            yield
        finally:
            timer.cancel()
            self._streams.discard(stream)
            stream.leave()
            self.worker.leave()

    @contextmanager
    def _admitted(self, answers: int, tokens: int, claimant: tuple[str, str] | None) -> Iterator[Ticket]:
        with self._refusals:
            ticket = self.admission.enter(answers, answers * tokens, claimant)
        try:
            yield ticket
        finally:
            self.admission.leave(ticket)

    def _check(self, prompt: Prompt, sampling: SamplingOptions, answers: int) -> None:
        if self._closed:
            raise Draining("the server is stopping and takes no new requests; try another replica")
        check_size(prompt)
        sampling.check()
        most = self.limits.max_answers
        if not 1 <= answers <= most:
            raise InvalidParameter(f"n is {answers}; the limit is {most} answers; choose from 1 to {most}", "n")

    async def _adapter(self, reference: str, resolved: ResolvedReference, deadline: float) -> Adapter:
        try:
            adapters = await self.adapters.get([resolved.wanted], deadline - self._clock())
        except TimeoutError:
            raise self._expired() from None
        adapter = adapters[resolved.digest]
        if isinstance(adapter, Exception):
            raise adapter
        if adapter.task != self._own.task:
            raise WrongTask(reference, adapter.task, self._own.task)
        return adapter

    async def _tokens(self, prompt: Prompt, adapter: Adapter, deadline: float) -> list[int]:
        try:
            async with asyncio.timeout(deadline - self._clock()):
                if isinstance(prompt, Chat):
                    return await self._chat_tokens(prompt, adapter)
                return await asyncio.to_thread(self._encode, prompt, adapter)
        except TimeoutError:
            raise self._expired() from None

    async def _chat_tokens(self, chat: Chat, adapter: Adapter) -> list[int]:
        if self._form.rewrites:
            raise InvalidInput(
                "this model rewrites a text, so it takes no messages; send the text to /v1/completions",
                "messages",
            )
        return await self.tokenizer_of(adapter).chat_ids(chat.under(adapter.prompting))

    def _encode(self, prompt: str | Sequence[int], adapter: Adapter) -> list[int]:
        return self.tokenizer_of(adapter).encode(prompt) if isinstance(prompt, str) else list(prompt)

    async def _constraints(
        self, grammar: Grammar | None, sampling: SamplingOptions, answers: int, deadline: float
    ) -> Sequence[TokenConstraint | None]:
        if grammar is None:
            return [None] * answers
        try:
            async with asyncio.timeout(deadline - self._clock()):
                return await self._grammars.compile(grammar, answers, sampling.ignore_eos)
        except TimeoutError:
            raise self._expired() from None

    def _load(self, digest: str) -> Adapter:
        began, ok = time.perf_counter(), False
        try:
            own = digest == self._own.digest
            adapter = self._own if own else self.equipped(self._catalog.load(digest))
            self.runner.warm(adapter)
            ok = True
        finally:
            self._observer.loaded("memory", time.perf_counter() - began, ok)
        return adapter

    def equipped(self, adapter: Adapter) -> Adapter:
        """Return an adapter with all that it needs to be served: a tokenizer, if it brings tokens.

        Raise Rejected (check "schema") if its tokens do not fit the foundation's tokenizer.
        """
        tokens, end = adapter.preprocessing.tokens, adapter.prompting.end_token
        return replace(adapter, tokenizer=self._tokenizer.extended(tokens, end)) if tokens else adapter

    def resolve(self, reference: str) -> ResolvedReference:
        """Return the version that a reference means. Raise the catalog's own error for an unknown one."""
        if reference in (FOUNDATION, self.name):
            return ResolvedReference(reference, None, self._own.digest)
        return self._catalog.resolve(reference)

    def _expired(self) -> Expired:
        return Expired("the answer was not complete in time; ask for fewer tokens, or try again later")

    def _fall(self, fault: BaseException) -> None:
        """Admit nothing more after the thread failed, and fail every stream."""
        self.fallen = self._closed = True
        error: EngineError = RunnerFault(f"the engine has failed: {type(fault).__name__}: {fault}")
        for stream in list(self._streams):
            stream.fail_from_thread(error)


def _stats(stream: TextStream, arrived: float, now: float) -> GenerationStats:
    return GenerationStats(
        stream.resolved.name,
        stream.prompt_tokens,
        stream.reused_tokens,
        stream.completion_tokens,
        len(stream.sequences),
        None if stream.first is None else stream.first - arrived,
        now - arrived,
        None if stream.error is None else stream.error.code,
        stream.resolved.version,
        tuple(part.name for part in stream.resolved.parts),
    )


def _nth(sampling: SamplingOptions, i: int) -> SamplingOptions:
    """Return the options of answer i: each answer to one prompt has a separate seed."""
    return sampling if sampling.seed is None or not i else replace(sampling, seed=sampling.seed + i)
