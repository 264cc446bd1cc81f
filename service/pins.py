"""Adapters brought into memory ahead of requests: the ones that a name now points to, and the pinned ones."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import structlog

from rootstock.adapters.registry.port import Registry
from rootstock.service.foundations import FoundationHost, Foundations


class Pins:
    """Keeps the adapters that some references mean in host memory and in slots, whatever they come to mean.

    Used from the event loop. A reference that cannot be resolved or loaded is logged, and left for the requests
    that need it.
    """

    def __init__(self, foundations: Foundations, registry: Registry, references: Sequence[str]) -> None:
        self._foundations = foundations
        self._registry = registry
        self._references = references
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Pin the adapters that the references mean now; those that they meant before may go after that."""
        async with self._turn:
            pinned: dict[str, set[str]] = defaultdict(set)
            for reference in self._references:
                if (place := await self._load(reference, "not pinned")) is not None:
                    host, digest = place
                    pinned[host.name].add(digest)
            for host in self._foundations:
                engine = host.engine
                engine.slots.pin(frozenset(pinned[host.name]))
                for digest in engine.slots.pinned:
                    if (adapter := engine.cache.peek(digest)) is not None:
                        engine.batcher.place(adapter)

    def moved(self, reference: str | None = None) -> None:
        """Warm the adapter that a name now points to, and let the pins follow; None where a name is gone."""
        task = asyncio.create_task(self._catch_up(reference))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop the loads under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _catch_up(self, reference: str | None) -> None:
        if reference is not None:
            await self._load(reference, "not loaded ahead")
        if self._references:
            await self.follow()

    async def _load(self, reference: str, failure: str) -> tuple[FoundationHost, str] | None:
        """Return the host and the digest that a reference means now, once the adapter is in memory.

        `failure` is the event that is logged where it cannot be.
        """
        try:
            resolution = await asyncio.to_thread(self._registry.resolve, reference)
            host = self._foundations.of(resolution)
            await host.engine.cache.get(resolution.digest)
        except Exception as error:  # whatever a registry or a store raises: the request that needs it is told
            structlog.get_logger().warning(failure, reference=reference, reason=str(error))
            return None
        return host, resolution.digest
