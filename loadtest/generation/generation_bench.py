"""The chat foundation in an engine, with random adapters in memory, for the benchmarks of generated text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.spec import Adapter
from rootstock.loadtest.fixtures.random_lora import LoraKind, random_adapters
from rootstock.loadtest.measure.agreement import Disagreement
from rootstock.service.engine.core.catalog import FOUNDATION, ResolvedReference
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.generate.engine import GenerationEngine, GenerationLimits
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.engine.generate.sampling_options import SamplingOptions
from rootstock.service.engine.generate.scheduler import StepLimits
from rootstock.service.engine.runners.decoder.decoder import TorchDecoder

SEQUENCES = 16
PROMPT_TOKENS = 32
_CACHE_TOKENS = 16_384
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class _MemoryCatalog:
    """A catalog of adapters in memory, whose names are their digests."""

    adapters: dict[str, Adapter]

    def resolve(self, reference: str) -> ResolvedReference:
        return ResolvedReference(reference, None, reference)

    def load(self, digest: str) -> Adapter:
        return self.adapters[digest]


@dataclass(frozen=True)
class GenerationBench:
    """An engine on the chat foundation, and its adapters by name."""

    files: FoundationFiles
    engine: GenerationEngine
    adapters: dict[str, Adapter]
    loop: asyncio.AbstractEventLoop
    vocabulary: int
    draw: np.random.Generator

    def new_prompts(self) -> list[list[int]]:
        """Return prompts of random tokens. No run copies what an earlier one has computed."""
        prompts: list[list[int]] = self.draw.integers(
            1000, self.vocabulary - 1000, (SEQUENCES, PROMPT_TOKENS)
        ).tolist()
        return prompts

    def generate(
        self, names: Sequence[str], tokens: int, prompts: Sequence[Sequence[int]] | None = None
    ) -> list[list[int]]:
        """Return the greedy tokens of one sequence under each name, all at once: `tokens` of each.

        The prompts are new ones by default.
        """
        return self.loop.run_until_complete(self._generate(names, prompts or self.new_prompts(), tokens))

    def check_alone(self, names: Sequence[str], tokens: int) -> None:
        """Raise Disagreement if a sequence has other tokens among the others than alone."""
        prompts = self.new_prompts()
        mixed = self.generate(names, tokens, prompts)
        for i, name in enumerate(names):
            alone = self.loop.run_until_complete(self._one(name, prompts[i], tokens))
            if alone != mixed[i]:
                raise Disagreement(f"sequence {i} under {name}: {mixed[i]} among others, {alone} alone")

    async def _generate(
        self, names: Sequence[str], prompts: Sequence[Sequence[int]], tokens: int
    ) -> list[list[int]]:
        calls = (self._one(name, prompt, tokens) for name, prompt in zip(names, prompts, strict=True))
        return list(await asyncio.gather(*calls))

    async def _one(self, name: str, prompt: Sequence[int], tokens: int) -> list[int]:
        sampling = SamplingOptions(temperature=0.0, max_tokens=tokens, ignore_eos=True)
        async with self.engine.generate(name, prompt, sampling) as stream:
            return [piece.choice.token async for piece in stream]


@contextmanager
def open_generation_bench(kind: LoraKind, threads: int) -> Iterator[GenerationBench]:
    """Open the chat foundation with 16 random adapters of a kind."""
    files = locate("chat")
    spec = describe(files)
    adapters = random_adapters(spec, kind, SEQUENCES)
    engine = GenerationEngine(
        spec,
        TorchDecoder(files.folder, spec, SEQUENCES + 3, _CACHE_TOKENS, threads),
        PromptTokenizer(files.folder),
        _MemoryCatalog(adapters),
        Observer(),
        GenerationLimits(timeout_s=_TIMEOUT_S, cache_bytes=2**31),
        steps=StepLimits(rows=SEQUENCES, prefill_tokens=SEQUENCES * PROMPT_TOKENS),
    )
    vocabulary = 0 if spec.causal_lm is None else spec.causal_lm.vocabulary
    loop = asyncio.new_event_loop()
    engine.start()
    try:
        yield GenerationBench(files, engine, adapters, loop, vocabulary, np.random.default_rng(1))
    finally:
        engine.stop()
        loop.close()


def bare_names() -> list[str]:
    """Return the references of 16 sequences without an adapter."""
    return [FOUNDATION] * SEQUENCES
