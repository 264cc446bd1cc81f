"""Adapters in host memory, by digest: loaded once however many ask, least recently used out by bytes."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rootstock.adapters.spec import Adapter

# The bytes that Python keeps beside the numbers, as tracemalloc counts it: of each array, and of each adapter.
_ARRAY_BYTES = 512
_ADAPTER_BYTES = 1024
# Loads at once. The threads are the cache's own: a store that hangs keeps nothing else of the server waiting.
_LOADS = 8


class _CacheEntry(NamedTuple):
    adapter: Adapter
    nbytes: int


class AdapterCache:
    """Digest → Adapter. Used from the event loop; loading runs in separate threads.

    The total stays within `max_bytes`, except for what is `in_use` and what came last; `evicted` is told
    who left. A load that fails leaves nothing behind and is tried again by the next request. Whoever asks
    while a load runs shares it, and leaving does not cancel it for the others.
    """

    def __init__(
        self,
        load: Callable[[str], Adapter],
        max_bytes: int,
        in_use: Callable[[str], bool] = lambda digest: False,
        evicted: Callable[[str], None] = lambda digest: None,
    ) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._in_use = in_use
        self._evicted = evicted
        self._held: OrderedDict[str, _CacheEntry] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Adapter]] = {}
        self._threads = ThreadPoolExecutor(_LOADS, "rootstock-load")
        self.nbytes = 0

    def close(self) -> None:
        """Load nothing more; a load that runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def peek(self, digest: str) -> Adapter | None:
        """Return the adapter if it is in memory."""
        held = self._held.get(digest)
        if held is None:
            return None
        self._held.move_to_end(digest)
        return held.adapter

    async def get(self, digest: str) -> Adapter:
        """Return the adapter, loaded if need be. Raise what loading it raised."""
        adapter = self.peek(digest)
        if adapter is not None:
            return adapter
        task = self._loading.get(digest)
        if task is None:
            task = self._loading[digest] = asyncio.create_task(self._fetch(digest))
        return await asyncio.shield(task)

    def put(self, adapter: Adapter) -> None:
        """Keep an adapter; the least recently used leave while the total is over the limit."""
        self.drop(adapter.digest)
        held = self._held[adapter.digest] = _CacheEntry(adapter, memory_of(adapter))
        self.nbytes += held.nbytes
        self.trim()

    def trim(self) -> None:
        """Let adapters go that are over the limit and in use no more."""
        excess = self.nbytes - self._max_bytes
        if excess <= 0:
            return
        last = next(reversed(self._held), None)
        leaving = []
        for digest, held in self._held.items():
            if excess <= 0:
                break
            if digest != last and not self._in_use(digest):
                leaving.append(digest)
                excess -= held.nbytes
        for digest in leaving:
            self.drop(digest)
            self._evicted(digest)

    def drop(self, digest: str) -> None:
        """Forget an adapter; one that is being loaded goes to those who wait for it and is not kept."""
        self._loading.pop(digest, None)
        held = self._held.pop(digest, None)
        if held is not None:
            self.nbytes -= held.nbytes

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, digest: str) -> bool:
        return digest in self._held

    async def _fetch(self, digest: str) -> Adapter:
        try:
            adapter = await asyncio.get_running_loop().run_in_executor(self._threads, self._load, digest)
        finally:
            kept = self._loading.get(digest) is asyncio.current_task()
            if kept:
                del self._loading[digest]
        if kept:
            self.put(adapter)
        return adapter


def memory_of(adapter: Adapter) -> int:
    """Return the bytes that go free with the adapter: its arrays' buffers, labels, prefix and objects.

    An array can be a view into a buffer that other arrays share, or into one much larger than itself: each buffer
    counts whole and once.
    """
    weights = adapter.weights
    arrays = [array for update in weights.sites.values() for array in update.arrays()]
    arrays += weights.head.values()
    owners: list[Any] = [array if array.base is None else array.base for array in arrays]
    buffers = {id(owner): memoryview(owner).nbytes for owner in owners}
    texts = sys.getsizeof(adapter.labels) + sum(map(sys.getsizeof, adapter.labels))
    texts += sys.getsizeof(adapter.preprocessing.prefix)
    return sum(buffers.values()) + texts + _ARRAY_BYTES * len(arrays) + _ADAPTER_BYTES
