"""An engine in this process, without HTTP, on an event loop of its own that plain code waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvloop

from adapters.spec import Adapter
from loadtest.workload import Workload
from service.engine.answer import Answer
from service.engine.catalog import Catalog, Resolved
from service.engine.engine import Engine, EngineLimits
from service.engine.observer import Observer
from service.engine.runners.onnx_runner import OnnxRunner
from service.engine.tokenizer import Tokenizer

# The server's default.
SLOTS = 256


@dataclass(frozen=True)
class MemoryCatalog:
    """Adapters by name and by digest, all in memory."""

    by_name: Mapping[str, Adapter]
    by_digest: Mapping[str, Adapter]

    def resolve(self, reference: str) -> Resolved:
        """Version 1 of a name."""
        return Resolved(reference, 1, self.by_name[reference].digest)

    def load(self, digest: str) -> Adapter:
        """The adapter of a digest."""
        return self.by_digest[digest]


def catalog_of(workload: Workload, adapters: Sequence[Adapter]) -> MemoryCatalog:
    """A workload's adapters under its names."""
    return MemoryCatalog(
        dict(zip(workload.names, adapters, strict=True)), {adapter.digest: adapter for adapter in adapters}
    )


class LocalEngine:
    """An engine that is started, and the loop that its calls are waited for on."""

    def __init__(self, engine: Engine, loop: asyncio.Runner) -> None:
        self.engine = engine
        self._loop = loop

    def one(self, name: str, text: str, **parameters: Any) -> Answer:
        """The answer of one call of `Engine.predict`."""
        return self._loop.run(self.engine.predict(name, [text], parameters))

    def in_turn(self, names: Sequence[str], text: str, **parameters: Any) -> list[Answer]:
        """One text's answers under each adapter: one call each, the next when the last is answered."""
        return self._loop.run(self._in_turn(names, text, parameters))

    def fan_out(self, names: Sequence[str], text: str, **parameters: Any) -> list[Answer]:
        """One text's answers under each adapter: one call of `Engine.predict_many`."""
        answers = self._loop.run(self.engine.predict_many(names, [text], parameters))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if isinstance(answer, Answer)]

    async def _in_turn(self, names: Sequence[str], text: str, parameters: Mapping[str, Any]) -> list[Answer]:
        return [await self.engine.predict(name, [text], parameters) for name in names]


@contextmanager
def local_engine(
    runner: OnnxRunner, tokenizer: Tokenizer, catalog: Catalog, limits: EngineLimits | None = None
) -> Iterator[LocalEngine]:
    """An engine with the server's defaults, started; stopped at the end."""
    engine = Engine(runner.spec, runner, tokenizer, catalog, Observer(), limits)
    engine.start()
    try:
        # The loop that the server runs on.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
            yield LocalEngine(engine, loop)
    finally:
        engine.stop()
