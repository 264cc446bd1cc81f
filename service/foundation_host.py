"""A foundation of a server, with its engines, its catalog and its converter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rootstock.adapters.foundation.weights import FoundationWeights
from rootstock.adapters.spec import (
    GENERATION,
    ZERO_SHOT_IMAGES,
    Adapter,
    FoundationSpec,
)
from rootstock.service.conversion import Converter
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.engine.generate.prompt import PromptTokenizer
from rootstock.service.registry_catalog import RegistryCatalog
from rootstock.service.two_towers import TwoTowers


@dataclass(frozen=True)
class FoundationHost:
    """A foundation of this server, with its engines, its catalog of adapters and its converter.

    `name` is its reference. A decoder has a GenerationEngine and an Engine, which computes each input of its
    other adapters in one pass. An encoder–decoder model has only a GenerationEngine. A foundation of two towers
    has an Engine for each, which `towers` joins. Any other foundation has only an Engine. `base` holds its
    weights, because some adapters are stored relative to them. `tokenizer` returns its tokenizer, which may take
    time to open.
    """

    name: str
    engines: tuple[Engine | GenerationEngine, ...]
    catalog: RegistryCatalog
    base: FoundationWeights
    converter: Converter
    tokenizer: Callable[[], PromptTokenizer]
    towers: TwoTowers | None = None

    @property
    def spec(self) -> FoundationSpec:
        return self.catalog.spec

    @property
    def engine(self) -> Engine | GenerationEngine:
        """Return the engine of the foundation's default task."""
        return self.engines[0]

    @property
    def generator(self) -> GenerationEngine | None:
        """Return the engine that generates text, if there is one."""
        return next((engine for engine in self.engines if isinstance(engine, GenerationEngine)), None)

    @property
    def encoder(self) -> Engine | None:
        """Return the engine that computes each input in one pass, if there is one."""
        return next((engine for engine in self.engines if isinstance(engine, Engine)), None)

    def engine_of(self, task: str | None) -> Engine | GenerationEngine:
        """Return the engine that computes a task's adapters; that of the default task if the task is None."""
        if task is None:
            return self.engine
        return (self.generator if task in GENERATION else self.encoder) or self.engine

    def engines_of(self, task: str | None) -> tuple[Engine | GenerationEngine, ...]:
        """Return the engines that compute a task's adapters: both towers', or one."""
        if self.towers is not None and task == ZERO_SHOT_IMAGES:
            return self.towers.engines
        return (self.engine_of(task),)

    def parts(self, adapter: Adapter) -> list[tuple[Engine | GenerationEngine, Adapter]]:
        """Return the engines that compute an adapter, each with the adapter as it sees it."""
        if self.towers is not None and adapter.task == ZERO_SHOT_IMAGES:
            return list(self.towers.parts(adapter))
        return [(self.engine_of(adapter.task), adapter)]

    def max_tokens(self, adapter: Adapter | None) -> int:
        """Return the longest input in tokens of an adapter, or of the foundation for its default task."""
        spec = self.spec
        task = spec.own_tasks[0] if adapter is None else adapter.task
        if adapter is not None:
            most = adapter.preprocessing.max_length
        else:
            most = spec.max_tokens if task in GENERATION else spec.embedding.max_tokens
        generator = self.generator if task in GENERATION else None
        return most if generator is None else min(most, generator.runner.cache.capacity)
