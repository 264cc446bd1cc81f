"""Keep adapters in host memory while calls hold them, and forget deleted ones once no call does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.adapter_cache import AdapterCache, memory_of
from rootstock.service.engine.core.composition import (
    Composition,
    Wanted,
    compose,
    digest_of_wanted,
    digests_held,
)
from rootstock.service.engine.core.errors import Overloaded
from rootstock.service.engine.core.observer import Observer
from rootstock.service.engine.core.slots import Slots

# The compositions in use may take this share of the memory for adapters, so that others keep the rest.
_COMPOSED_SHARE = 0.5


class Residency:
    """The adapters that calls hold, by digest. Used from the event loop; `load` runs in a thread.

    `drop(digest)` frees the slot of an adapter that leaves host memory. A composition is made of its parts once,
    and from then on kept and placed like any adapter, but evicted before the others. `warm` opens what it needs,
    as `load` does for the others, and its ranks are at most `max_rank` at a site. The compositions in use take at
    most half of `max_bytes`, or one alone takes more.
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
        # The compositions in memory, and those that are being made.
        self._compositions: dict[str, Composition] = {}
        self.cache = AdapterCache(load, max_bytes, self._in_use, self._evicted, self._compositions.keys())
        self._foundation = foundation
        self._slots = slots
        self._drop = drop
        self._observer = observer
        self._warm = warm
        self._max_rank = max_rank
        self._most_composed = int(_COMPOSED_SHARE * max_bytes)
        self._held: Counter[str] = Counter()
        # The adapters that calls name, without the parts of compositions.
        self._asked: Counter[str] = Counter()
        self._idle: dict[str, asyncio.Event] = {}
        # The bytes that those that are being made may take.
        self._making: dict[str, int] = {}

    @contextmanager
    def hold(self, wanted: Sequence[Wanted]) -> Iterator[None]:
        """Hold these adapters for a call, from the time its references are resolved.

        `forget` waits for its end. A composition holds its parts too.
        """
        digests = list(digests_held(wanted))
        asked = [digest_of_wanted(one) for one in wanted]
        self._held.update(digests)
        self._asked.update(asked)
        try:
            yield
        finally:
            self._asked.subtract(asked)
            for digest in set(asked):
                if not self._asked[digest]:
                    del self._asked[digest]
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

    def asked(self) -> frozenset[str]:
        """Return the digests of the adapters that calls in progress ask for.

        Any thread may call it, because the copy is one step under the GIL.
        """
        return frozenset(self._asked)

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
        """Load the parts of a composition as separate adapters, and compose them in a loading thread.

        Raise Overloaded while other compositions leave it no memory.
        """
        self._compositions[composition.digest] = composition
        try:
            # Two parts may be one adapter.
            loads = [self.cache.get(part.digest) for part in composition.parts]
            parts = await asyncio.gather(*loads)
            self._reserve(composition.digest, sum(map(memory_of, parts)))
            return await self.cache.in_thread(partial(self._composed, composition, parts))
        except BaseException:
            self._compositions.pop(composition.digest, None)
            raise
        finally:
            self._making.pop(composition.digest, None)

    def _reserve(self, digest: str, size: int) -> None:
        """Count the bytes of a composition that is to be made, or raise Overloaded. One always fits."""
        in_use = self._compositions.keys() & self._held.keys()
        used = sum(self._making.values()) + sum(map(self.cache.size, in_use))
        if used and used + size > (most := self._most_composed):
            error = Overloaded(
                f"the compositions in use take {used} bytes of the {most} that they may take, and this one adds "
                f"{size}; retry after the time in Retry-After, or raise ROOTSTOCK_CACHE_MB on the server",
                1,
            )
            self._observer.refused(error.code)
            raise error
        self._making[digest] = size

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
