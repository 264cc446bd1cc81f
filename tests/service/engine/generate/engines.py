"""Runs a generation engine over adapters in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rootstock.adapters.spec import Adapter, FoundationSpec
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.generate.decoder import Decoder
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import Prompt, PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from tests.bounds import HANG

# A reference and its prompt.
Call = tuple[str, Prompt]


class MemoryCatalog:
    """A catalog of adapters in memory. Reference and digest are the same."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self.adapters = adapters

    def resolve(self, reference: str) -> ResolvedReference:
        return ResolvedReference(reference, 1, self.adapters[reference].digest)

    def load(self, digest: str) -> Adapter:
        return next(adapter for adapter in self.adapters.values() if adapter.digest == digest)


def run_engine(
    spec: FoundationSpec,
    decoder: Decoder,
    tokenizer: PromptTokenizer,
    adapters: Mapping[str, Adapter],
    work: Callable[[GenerationEngine], Awaitable[Any]],
    **options: Any,
) -> Any:
    """Return what `work` returns. At the end, no sequence may hold room in the cache."""
    engine = GenerationEngine(spec, decoder, tokenizer, MemoryCatalog(adapters), Observer(), **options)
    engine.start()
    try:
        return asyncio.run(asyncio.wait_for(work(engine), HANG))
    finally:
        engine.stop()
        assert decoder.cache.used == 0


async def tokens_of(engine: GenerationEngine, call: Call, sampling: SamplingOptions) -> list[int]:
    """Return the tokens of one answer."""
    async with engine.generate(*call, sampling) as stream:
        return [piece.choice.token async for piece in stream]


def answers_to(
    *calls: Call, sampling: SamplingOptions
) -> Callable[[GenerationEngine], Awaitable[list[list[int]]]]:
    """Return the work of answering calls at once."""

    async def work(engine: GenerationEngine) -> list[list[int]]:
        return await asyncio.gather(*(tokens_of(engine, call, sampling) for call in calls))

    return work
