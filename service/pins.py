"""The loading of adapters ahead of requests: pinned adapters, and those that a name now points to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from rootstock.adapters.reference import stored_name
from rootstock.adapters.registry.port import Registry
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.generate.engine import GenerationEngine
from rootstock.service.foundations import Foundations


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """A version in the memory of an engine, the reference that means it, and whether it is a candidate."""

    engine: Engine | GenerationEngine
    digest: str
    reference: str
    is_candidate: bool


class Pins:
    """The pinned references. Their adapters stay in host memory and in slots, also after an alias moves.

    A pinned alias with a split pins all versions of the split, as far as slots can be pinned: candidates of
    splits come after what the references point to. A reference may be a served name, and may begin with a tenant
    and a slash. Use it from the event loop. A reference that cannot be resolved, loaded or pinned is logged, and
    left to the requests that need it.
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
            loaded: list[LoadedVersion] = []
            for reference in map(self._foundations.directory.names.reference, self._references):
                loaded += await self._load(reference, "not pinned")
            # Whoever may split an alias decides how many candidates there are, so they must not take the room of
            # what the operator has named. The sort keeps the order of the references.
            loaded.sort(key=lambda one: one.is_candidate)
            pinned: dict[Engine | GenerationEngine, dict[str, str]] = defaultdict(dict)
            for one in loaded:
                pinned[one.engine].setdefault(one.digest, one.reference)
            for engine in [engine for host in self._foundations for engine in host.engines]:
                most = engine.slots.most_pinned
                reason = f"at most {most} adapters can be pinned; end its split, or raise ROOTSTOCK_SLOTS"
                for digest in list(pinned[engine])[most:]:
                    log = structlog.get_logger().bind(reference=pinned[engine].pop(digest))
                    log.warning("not pinned", digest=digest, reason=reason)
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

    async def _load(self, reference: str, failure: str) -> list[LoadedVersion]:
        """Load the adapters that a reference means, and return them with their engines.

        These are those of all versions of a split. Log the event `failure` for each that fails.
        """
        log = structlog.get_logger().bind(reference=reference)
        try:
            resolution = await asyncio.to_thread(self._registry.resolve, reference)
        except Exception as error:  # Any error of a registry: a request that needs the adapter gets it again.
            log.warning(failure, reason=str(error))
            return []
        loaded: list[LoadedVersion] = []
        for version in (resolution, *map(resolution.as_candidate, resolution.candidates)):
            try:
                engines = self._foundations.directory.of(version).engines_of(version.task)
                for engine in engines:
                    await engine.cache.get(version.digest)
            except Exception as error:  # Any error of a store.
                log.warning(failure, version=version.version, reason=str(error))
            else:
                is_candidate = version is not resolution
                loaded += [LoadedVersion(engine, version.digest, reference, is_candidate) for engine in engines]
        return loaded


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
