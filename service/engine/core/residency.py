"""Keep adapters in host memory while calls hold them, and forget deleted ones once no call does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.adapter_cache import AdapterCache
from rootstock.service.engine.core.composition import (
    Composition,
    Wanted,
    compose,
    digest_of_wanted,
    digests_held,
)
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.core.slots import Slots


class Residency:
    """The adapters that calls hold, by digest. Used from the event loop; `load` runs in a thread.

    `drop(digest)` frees the slot of an adapter that leaves host memory. A composition is made of its parts once,
    and from then on kept, evicted and placed like any adapter. `warm` opens what it needs, as `load` does for the
    others, and its ranks are at most `max_rank` at a site.
    """

    def __init__(
        self,
        foundation: Adapter,
        load: Callable[[str], Adapter],
        max_bytes: int,
        slots: Slots,
        drop: Callable[[str], None],
        observer: Observer,
        warm: Callable[[Adapter], None],
        max_rank: int,
    ) -> None:
        self.cache = AdapterCache(load, max_bytes, self._in_use, self._evicted)
        self._foundation = foundation
        self._slots = slots
        self._drop = drop
        self._observer = observer
        self._warm = warm
        self._max_rank = max_rank
        self._held: Counter[str] = Counter()
        self._idle: dict[str, asyncio.Event] = {}
        # The compositions in memory, and those that are being made.
        self._compositions: dict[str, Composition] = {}

    @contextmanager
    def hold(self, wanted: Sequence[Wanted]) -> Iterator[None]:
        """Hold these adapters for a call, from the time its references are resolved.

        `forget` waits for its end. A composition holds its parts too.
        """
        digests = list(digests_held(wanted))
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

    async def get(self, wanted: Sequence[Wanted], within: float) -> dict[str, Adapter | Exception]:
        """Return the adapter of each digest, or the error of its load. Load missing adapters concurrently.

        Raise TimeoutError after `within` seconds.
        """
        adapters: dict[str, Adapter | Exception] = {self._foundation.digest: self._foundation}
        cold: dict[str, Wanted] = {}
        for one in dict.fromkeys(wanted):
            digest = digest_of_wanted(one)
            adapter = adapters.get(digest) or self.cache.peek(digest)
            if adapter is None:
                cold[digest] = one
            else:
                adapters[digest] = adapter
        if cold:
            async with asyncio.timeout(within):
                loaded = await asyncio.gather(*map(self._load, cold.values()), return_exceptions=True)
            for digest, outcome in zip(cold, loaded, strict=True):
                if not isinstance(outcome, Adapter | Exception):
                    raise outcome
                adapters[digest] = outcome
        return adapters

    async def forget(self, digest: str) -> None:
        """Wait until no call holds the adapter, then free its slot and memory, and those of its compositions."""
        while self._held[digest]:
            await self._idle.setdefault(digest, asyncio.Event()).wait()
        # A call that holds a composition holds its parts, so none holds these.
        made = [one for one in self._compositions.values() if any(part.digest == digest for part in one.parts)]
        for gone in (digest, *(one.digest for one in made)):
            self._compositions.pop(gone, None)
            self.cache.drop(gone)
            self._drop(gone)

    def close(self) -> None:
        """Start no more loads."""
        self.cache.close()

    def residency(self, digest: str) -> str:
        """Return where an adapter is: "slot", "memory" or "store"."""
        if digest in self._slots.resident():
            return "slot"
        return "memory" if digest in self.cache else "store"

    async def _load(self, wanted: Wanted) -> Adapter:
        if isinstance(wanted, str):
            return await self.cache.get(wanted)
        return await self.cache.get(wanted.digest, partial(self._make, wanted))

    async def _make(self, composition: Composition) -> Adapter:
        """Load the parts of a composition as adapters of their own, and compose them in a loading thread."""
        self._compositions[composition.digest] = composition
        try:
            # Two parts may be one adapter.
            loads = [self.cache.get(part.digest) for part in composition.parts]
            parts = await asyncio.gather(*loads)
            return await self.cache.in_thread(partial(self._composed, composition, parts))
        except BaseException:
            self._compositions.pop(composition.digest, None)
            raise

    def _composed(self, composition: Composition, parts: Sequence[Adapter]) -> Adapter:
        began = time.perf_counter()
        adapter = compose(composition, parts, self._max_rank)
        self._warm(adapter)
        self._observer.loaded("memory", time.perf_counter() - began, True)
        return adapter

    def _evicted(self, digest: str) -> None:
        """Also free the slot of an adapter that leaves host memory: the slot may refer to the same memory."""
        self._compositions.pop(digest, None)
        self._observer.evicted("memory")
        self._drop(digest)

    def _in_use(self, digest: str) -> bool:
        return digest in self._held or digest in self._slots.pinned
