"""Keep adapters in host memory while calls hold them, and forget deleted ones once no call does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.adapter_cache import AdapterCache
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.core.slots import Slots


class Residency:
    """The adapters that calls hold, by digest. Used from the event loop; `load` runs in a thread.

    `drop(digest)` frees the slot of an adapter that leaves host memory.
    """

    def __init__(
        self,
        foundation: Adapter,
        load: Callable[[str], Adapter],
        max_bytes: int,
        slots: Slots,
        drop: Callable[[str], None],
        observer: Observer,
    ) -> None:
        self.cache = AdapterCache(load, max_bytes, self._in_use, self._evicted)
        self._foundation = foundation
        self._slots = slots
        self._drop = drop
        self._observer = observer
        self._held: Counter[str] = Counter()
        self._idle: dict[str, asyncio.Event] = {}

    @contextmanager
    def hold(self, digests: Sequence[str]) -> Iterator[None]:
        """Hold these adapters for a call, from the time its references are resolved.

        `forget` waits for its end.
        """
        self._held.update(digests)
        try:
            yield
        finally:
            self._held.subtract(digests)
            for digest in set(digests):
                if not self._held[digest]:
                    del self._held[digest]
                    if (idle := self._idle.pop(digest, None)) is not None:
                        idle.set()
            self.cache.trim()

    async def get(self, digests: Sequence[str], within: float) -> dict[str, Adapter | Exception]:
        """Return the adapter of each digest, or the error of its load. Load missing adapters concurrently.

        Raise TimeoutError after `within` seconds.
        """
        adapters: dict[str, Adapter | Exception] = {self._foundation.digest: self._foundation}
        cold = []
        for digest in dict.fromkeys(digests):
            adapter = adapters.get(digest) or self.cache.peek(digest)
            if adapter is None:
                cold.append(digest)
            else:
                adapters[digest] = adapter
        if cold:
            async with asyncio.timeout(within):
                loaded = await asyncio.gather(*map(self.cache.get, cold), return_exceptions=True)
            for digest, outcome in zip(cold, loaded, strict=True):
                if not isinstance(outcome, Adapter | Exception):
                    raise outcome
                adapters[digest] = outcome
        return adapters

    async def forget(self, digest: str) -> None:
        """Wait until no call holds the adapter, then free its slot and memory."""
        while self._held[digest]:
            await self._idle.setdefault(digest, asyncio.Event()).wait()
        self.cache.drop(digest)
        self._drop(digest)

    def close(self) -> None:
        """Start no more loads."""
        self.cache.close()

    def residency(self, digest: str) -> str:
        """Return where an adapter is: "slot", "memory" or "store"."""
        if digest in self._slots.resident():
            return "slot"
        return "memory" if digest in self.cache else "store"

    def _evicted(self, digest: str) -> None:
        """Also free the slot of an adapter that leaves host memory: the slot may refer to the same memory."""
        self._observer.evicted("memory")
        self._drop(digest)

    def _in_use(self, digest: str) -> bool:
        return digest in self._held or digest in self._slots.pinned
