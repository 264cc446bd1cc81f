"""The chat foundation in an engine, with random adapters in memory, for the benchmarks of generated text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rootstock.adapters.foundation.architecture import describe
from rootstock.adapters.foundation.location import FoundationFiles, locate
from rootstock.adapters.spec import (
    TEXT_GENERATION,
    Adapter,
    AdapterWeights,
    Array,
    FoundationSpec,
    HeadSpec,
    Preprocessing,
    SiteUpdate,
)
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
# Trained adapters change each weight by about this much.
_SCALE = 0.02
_CACHE_TOKENS = 16_384
_TIMEOUT_S = 3600.0


class LoraKind(NamedTuple):
    """The form of a benchmark's adapters: their rank, and the last parts of their sites' names (None: all)."""

    rank: int
    targets: tuple[str, ...] | None

    @property
    def text(self) -> str:
        return f"rank {self.rank} on {'all linear layers' if self.targets is None else ', '.join(self.targets)}"


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
    prompts: Sequence[Sequence[int]]
    loop: asyncio.AbstractEventLoop

    def generate(self, names: Sequence[str], tokens: int) -> list[list[int]]:
        """Return the greedy tokens of one sequence under each name, all at once: `tokens` of each."""
        return self.loop.run_until_complete(self._generate(names, tokens))

    def check_alone(self, names: Sequence[str], tokens: int) -> None:
        """Raise Disagreement if a sequence has other tokens among the others than alone."""
        mixed = self.generate(names, tokens)
        for i, name in enumerate(names):
            alone = self.loop.run_until_complete(self._one(name, self.prompts[i], tokens))
            if alone != mixed[i]:
                raise Disagreement(f"sequence {i} under {name}: {mixed[i]} among others, {alone} alone")

    async def _generate(self, names: Sequence[str], tokens: int) -> list[list[int]]:
        calls = (self._one(name, prompt, tokens) for name, prompt in zip(names, self.prompts, strict=False))
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
    draw = np.random.default_rng(0)
    adapters = {f"adapter-{i}": _random_adapter(spec, kind, f"adapter-{i}", draw) for i in range(SEQUENCES)}
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
    prompts = draw.integers(1000, vocabulary - 1000, (SEQUENCES, PROMPT_TOKENS)).tolist()
    loop = asyncio.new_event_loop()
    engine.start()
    try:
        yield GenerationBench(files, engine, adapters, prompts, loop)
    finally:
        engine.stop()
        loop.close()


def bare_names() -> list[str]:
    """Return the references of 16 sequences without an adapter."""
    return [FOUNDATION] * SEQUENCES


def _random_adapter(spec: FoundationSpec, kind: LoraKind, name: str, draw: np.random.Generator) -> Adapter:
    def part(*shape: int) -> Array:
        return draw.normal(0, _SCALE, shape).astype(np.float32)

    sites = {
        site: SiteUpdate(part(kind.rank, features[0]), part(kind.rank, features[1]))
        for site, features in spec.sites.items()
        if kind.targets is None or site.rpartition(".")[2] in kind.targets
    }
    head = HeadSpec("causal-lm", None if spec.causal_lm is None else spec.causal_lm.class_name)
    return Adapter(
        name, TEXT_GENERATION, None, (), head, Preprocessing(spec.max_tokens), AdapterWeights(sites, {})
    )
