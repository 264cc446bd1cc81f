"""What is brought into memory ahead of requests: what a name has come to mean, and what is pinned for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from rootstock.service.engine.core.catalog import Catalog
from rootstock.service.engine.encode.engine import Engine


class Pins:
    """Keeps the adapters that some references mean in host memory and in slots, whatever they come to mean.

    Used from the event loop. What cannot be resolved or loaded is logged and left for the requests that need it.
    """

    def __init__(self, engine: Engine, catalog: Catalog, references: Sequence[str]) -> None:
        self._engine = engine
        self._catalog = catalog
        self._references = references
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Pin what the references mean now; what they meant before may go once that is in memory."""
        async with self._turn:
            found = {await self._loaded(reference) for reference in self._references} - {None}
            self._engine.slots.pin(frozenset(digest for digest in found if digest is not None))
            for digest in self._engine.slots.pinned:
                adapter = self._engine.cache.peek(digest)
                if adapter is not None:
                    self._engine.batcher.place(adapter)

    def moved(self, digest: str | None = None) -> None:
        """A name has come to mean `digest`, or nothing any more: load it and let the pins follow, later."""
        task = asyncio.create_task(self._catch_up(digest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _catch_up(self, digest: str | None) -> None:
        if digest is not None:
            await self._load(digest)
        if self._references:
            await self.follow()

    async def _loaded(self, reference: str) -> str | None:
        """The digest that a reference means now, once it is in memory."""
        try:
            digest = (await asyncio.to_thread(self._catalog.resolve, reference)).digest
        except Exception as error:  # whatever a catalog raises: nothing is pinned for this reference yet
            structlog.get_logger().warning("not pinned", reference=reference, reason=str(error))
            return None
        return digest if await self._load(digest) else None

    async def _load(self, digest: str) -> bool:
        try:
            await self._engine.cache.get(digest)
        except Exception as error:  # whatever a catalog raises: the request that needs it is told
            structlog.get_logger().warning("not loaded ahead", digest=digest, reason=str(error))
            return False
        return True
