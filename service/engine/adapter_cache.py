"""Adapters in host memory, by digest: loaded once however many ask, least recently used out by bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from adapters.spec import Adapter


class AdapterCache:
    """Digest → Adapter. Used from the event loop; loading runs in a thread.

    A load that fails leaves nothing behind and is tried again by the next request. Whoever asks while a load
    runs shares it, and leaving does not cancel it for the others.
    """

    def __init__(self, load: Callable[[str], Adapter], max_bytes: int) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, Adapter] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Adapter]] = {}
        self.nbytes = 0

    def peek(self, digest: str) -> Adapter | None:
        """The adapter if it is in memory."""
        adapter = self._held.get(digest)
        if adapter is not None:
            self._held.move_to_end(digest)
        return adapter

    async def get(self, digest: str) -> Adapter:
        """The adapter, loaded if need be; raises what loading it raised."""
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
        self._held[adapter.digest] = adapter
        self.nbytes += adapter.weights.nbytes
        while self.nbytes > self._max_bytes and len(self._held) > 1:
            self.drop(next(iter(self._held)))

    def drop(self, digest: str) -> None:
        """Forget an adapter; one that is being loaded goes to those who wait for it and is not kept."""
        self._loading.pop(digest, None)
        adapter = self._held.pop(digest, None)
        if adapter is not None:
            self.nbytes -= adapter.weights.nbytes

    def __contains__(self, digest: str) -> bool:
        return digest in self._held

    async def _fetch(self, digest: str) -> Adapter:
        try:
            adapter = await asyncio.to_thread(self._load, digest)
        finally:
            kept = self._loading.get(digest) is asyncio.current_task()
            if kept:
                del self._loading[digest]
        if kept:
            self.put(adapter)
        return adapter
