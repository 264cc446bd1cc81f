"""The loading of adapters ahead of requests: pinned adapters, and those that a name now points to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import structlog

from rootstock.adapters.reference import stored_name
from rootstock.adapters.registry.port import Registry
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.foundations import Foundations


class Pins:
    """The pinned references. Their adapters stay in host memory and in slots, also after an alias moves.

    A reference may be a served name, and may begin with a tenant and a slash. Use it from the event loop. A
    reference that cannot be resolved or loaded is logged, and left to the requests that need it.
    """

    def __init__(self, foundations: Foundations, registry: Registry, references: Sequence[str]) -> None:
        self._foundations = foundations
        self._registry = registry
        self._references = references
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def seen_by(self, tenant: str) -> TenantPins:
        """Return the pins as the changes of a tenant concern them."""
        return TenantPins(self, tenant)

    async def follow(self) -> None:
        """Pin the adapters that the references point to now, then unpin those that they pointed to before."""
        async with self._turn:
            pinned: dict[Engine | GenerationEngine, set[str]] = defaultdict(set)
            for reference in map(self._foundations.names.reference, self._references):
                if (target := await self._load(reference, "not pinned")) is not None:
                    engines, digest = target
                    for engine in engines:
                        pinned[engine].add(digest)
            for engine in [engine for host in self._foundations for engine in host.engines]:
                engine.slots.pin(frozenset(pinned[engine]))
                for digest in engine.slots.pinned:
                    if (adapter := engine.cache.peek(digest)) is not None:
                        engine.place(adapter)

    def moved(self, reference: str | None = None) -> None:
        """Load the adapter that a name now points to, and update the pins; None after a deletion. Do not wait."""
        task = asyncio.create_task(self._catch_up(reference))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the loads in progress."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _catch_up(self, reference: str | None) -> None:
        if reference is not None:
            await self._load(reference, "not loaded ahead")
        if self._references:
            await self.follow()

    async def _load(
        self, reference: str, failure: str
    ) -> tuple[tuple[Engine | GenerationEngine, ...], str] | None:
        """Load the adapter that a reference points to, and return its engines and digest.

        If that fails, log the event `failure` and return None.
        """
        try:
            resolution = await asyncio.to_thread(self._registry.resolve, reference)
            engines = self._foundations.of(resolution).engines_of(resolution.task)
            for engine in engines:
                await engine.cache.get(resolution.digest)
        except Exception as error:  # Any error of a registry or store: a request that needs it gets it again.
            structlog.get_logger().warning(failure, reference=reference, reason=str(error))
            return None
        return engines, resolution.digest


class TenantPins:
    """The pins of a server, for the changes of one tenant to its own adapters."""

    def __init__(self, pins: Pins, tenant: str) -> None:
        self._pins = pins
        self._tenant = tenant

    def seen_by(self, tenant: str) -> TenantPins:
        """Return the pins for the changes of another tenant."""
        return TenantPins(self._pins, tenant)

    def moved(self, reference: str | None = None) -> None:
        """Load the adapter that a name of the tenant now points to, and update the pins, as `Pins.moved` does."""
        self._pins.moved(None if reference is None else stored_name(self._tenant, reference))
