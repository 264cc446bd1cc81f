"""Keep adapters in host memory by digest, load each once, and evict the least recently used."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from rootstock.adapters.spec import Adapter

# Python's overhead in bytes for each array and each adapter, beside the numbers, as tracemalloc counts it.
_ARRAY_BYTES = 512
_ADAPTER_BYTES = 1024
# Loads at once. The cache has separate threads, so that a store that hangs blocks nothing else in the server.
_LOADS = 8


class _CacheEntry(NamedTuple):
    adapter: Adapter
    nbytes: int


class AdapterCache:
    """A map from digest to Adapter, used from the event loop. Separate threads load.

    The total stays within `max_bytes`, except for adapters that are `in_use` and the one added last. Those with a
    digest in `made` are made of others, and leave before all that were loaded. The cache calls `evicted` with the
    digest of each adapter that it evicts. A load that fails leaves nothing behind, and the next request tries it
    again. Callers that ask for the same digest during a load share that load; a caller that is cancelled does not
    cancel it for the others.
    """

    def __init__(
        self,
        load: Callable[[str], Adapter],
        max_bytes: int,
        in_use: Callable[[str], bool] = lambda digest: False,
        evicted: Callable[[str], None] = lambda digest: None,
        made: Collection[str] = (),
    ) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._in_use = in_use
        self._evicted = evicted
        self._made = made
        self._entries: OrderedDict[str, _CacheEntry] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Adapter]] = {}
        self._threads = ThreadPoolExecutor(_LOADS, "rootstock-load")
        self.nbytes = 0

    def close(self) -> None:
        """Start no more loads, and do not wait for one that runs."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def peek(self, digest: str) -> Adapter | None:
        """Return the adapter if it is in memory."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        self._entries.move_to_end(digest)
        return entry.adapter

    async def get(self, digest: str, make: Callable[[], Awaitable[Adapter]] | None = None) -> Adapter:
        """Return the adapter, and load it first if it is not in memory. Raise the error of a load that fails.

        `make` takes the place of the load, for an adapter that is made of others.
        """
        adapter = self.peek(digest)
        if adapter is not None:
            return adapter
        task = self._loading.get(digest)
        if task is None:
            load = make or partial(self.in_thread, partial(self._load, digest))
            task = self._loading[digest] = asyncio.create_task(self._fetch(digest, load))
        return await asyncio.shield(task)

    async def in_thread(self, load: Callable[[], Adapter]) -> Adapter:
        """Return the adapter that `load` gives in one of the loading threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, load)

    def put(self, adapter: Adapter) -> None:
        """Keep an adapter, and evict others while the total is over the limit."""
        self.drop(adapter.digest)
        entry = self._entries[adapter.digest] = _CacheEntry(adapter, memory_of(adapter))
        self.nbytes += entry.nbytes
        self.trim()

    def trim(self) -> None:
        """Evict unused adapters until the total is within the limit.

        Those that are made of others go first, and of each kind the least recently used.
        """
        excess = self.nbytes - self._max_bytes
        if excess <= 0:
            return
        last = next(reversed(self._entries), None)
        leaving = []
        made = [digest for digest in self._entries if digest in self._made] if self._made else []
        for digest in chain(made, (digest for digest in self._entries if digest not in self._made)):
            if excess <= 0:
                break
            if digest != last and not self._in_use(digest):
                leaving.append(digest)
                excess -= self._entries[digest].nbytes
        for digest in leaving:
            self.drop(digest)
            self._evicted(digest)

    def drop(self, digest: str) -> None:
        """Forget an adapter. One that is still loading goes to the callers that wait for it and is not kept."""
        self._loading.pop(digest, None)
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self.nbytes -= entry.nbytes

    def size(self, digest: str) -> int:
        """Return the bytes of an adapter, 0 if it is not in memory."""
        entry = self._entries.get(digest)
        return 0 if entry is None else entry.nbytes

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    async def _fetch(self, digest: str, load: Callable[[], Awaitable[Adapter]]) -> Adapter:
        try:
            adapter = await load()
        finally:
            kept = self._loading.get(digest) is asyncio.current_task()
            if kept:
                del self._loading[digest]
        if kept:
            self.put(adapter)
        return adapter


def memory_of(adapter: Adapter) -> int:
    """Return the bytes that evicting the adapter frees: its arrays' buffers, texts, tokenizer and objects.

    An array can be a view into a buffer that other arrays share, or into a much larger one. Each buffer therefore
    counts whole and once.
    """
    weights = adapter.weights
    arrays = weights.arrays()
    owners: list[Any] = [array if array.base is None else array.base for array in arrays]
    buffers = {id(owner): memoryview(owner).nbytes for owner in owners}
    texts = sys.getsizeof(adapter.labels) + sum(map(sys.getsizeof, adapter.labels))
    texts += sys.getsizeof(adapter.preprocessing.prefix)
    tokenizer = 0 if adapter.tokenizer is None else adapter.tokenizer.nbytes
    return sum(buffers.values()) + texts + tokenizer + _ARRAY_BYTES * len(arrays) + _ADAPTER_BYTES
