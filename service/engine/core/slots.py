"""Assign the runner's slots to adapters, lease them to batches, and keep pinned adapters in theirs."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.host import AdapterHost
from rootstock.service.engine.core.observer import Observer


@dataclass
class _SlotLease:
    slot: int
    leases: int = 0


class Slots:
    """The runner's adapter slots. A new adapter evicts the least recently used that is neither leased nor pinned.

    Two slots are reserved and never evicted: slot 0 for the bare foundation, and the last one for verification.
    Only one thread may call it, except for `pin` and `resident`.
    """

    def __init__(self, runner: AdapterHost, foundation: Adapter, observer: Observer | None = None) -> None:
        if runner.slots < 3:
            raise ValueError(
                f"the runner has {runner.slots} slots; give it at least 3 (foundation, one adapter, verification)"
            )
        self._runner = runner
        self._observer = observer or Observer()
        self._places: OrderedDict[str, _SlotLease] = OrderedDict()
        self._free = list(range(runner.slots - 2, 0, -1))
        self._verification = _SlotLease(runner.slots - 1)
        self._verifying: str | None = None
        # `pin` replaces this set and never changes it, because another thread may read it at the same time.
        self.pinned: frozenset[str] = frozenset()
        self.loads = 0
        self.evictions = 0
        runner.place(0, runner.stage(foundation))
        self._foundation = foundation.digest

    def lease(self, adapter: Adapter, verifying: bool = False) -> int | None:
        """Return the slot that holds the adapter until `release`, or None if no slot can be freed for it.

        Load the adapter first if it is in no slot. It is staged before another is evicted, so that a load that
        fails changes nothing.
        """
        if adapter.digest == self._foundation:
            return 0
        if verifying:
            return self._lease_verification(adapter)
        place = self._places.get(adapter.digest)
        if place is None:
            victim = None if self._free else self._oldest_evictable()
            if victim is None and not self._free:
                return None
            began = time.perf_counter()
            staged = self._staged(adapter, began)
            slot = self._free.pop() if victim is None else self._evict(victim)
            self._runner.place(slot, staged)
            self.loads += 1
            self._observer.loaded("slot", time.perf_counter() - began, True)
            place = self._places[adapter.digest] = _SlotLease(slot)
        self._places.move_to_end(adapter.digest)
        place.leases += 1
        return place.slot

    def release(self, digest: str, verifying: bool = False) -> None:
        """Give back one lease of an adapter."""
        if digest == self._foundation:
            return
        place = self._verification if verifying else self._places[digest]
        place.leases -= 1
        if verifying and not place.leases:
            self._runner.clear(place.slot)
            self._verifying = None

    def drop(self, digest: str) -> bool:
        """Free the slot of an adapter, pinned or not. Return False if it is leased, and do nothing."""
        place = self._places.get(digest)
        if place is None:
            return True
        if place.leases:
            return False
        slot = self._evict(digest)
        self._runner.clear(slot)
        self._free.append(slot)
        return True

    @property
    def most_pinned(self) -> int:
        """Return how many adapters can be pinned at most."""
        return self._runner.slots - 3

    def pin(self, digests: frozenset[str]) -> None:
        """Keep these adapters and no others in their slots, from their next lease on. Any thread may call it.

        Raise ValueError if they would leave no slot for other adapters.
        """
        most = self.most_pinned
        if len(digests) > most:
            message = f"{len(digests)} adapters to pin; at most {most}, so that others have a slot; pin fewer"
            raise ValueError(message)
        self.pinned = digests

    def is_foundation(self, digest: str) -> bool:
        """Tell whether a digest is the foundation's, whose slot is reserved."""
        return digest == self._foundation

    def resident(self) -> frozenset[str]:
        """Return the digests of the adapters in slots.

        Any thread may call it, because the copy is one step under the GIL.
        """
        return frozenset(self._places)

    def _lease_verification(self, adapter: Adapter) -> int | None:
        place = self._verification
        if not place.leases:
            self._runner.place(place.slot, self._runner.stage(adapter))
            self._verifying = adapter.digest
        elif self._verifying != adapter.digest:
            return None
        place.leases += 1
        return place.slot

    def _staged(self, adapter: Adapter, began: float) -> Any:
        try:
            return self._runner.stage(adapter)
        except Exception:
            self._observer.loaded("slot", time.perf_counter() - began, False)
            raise

    def _oldest_evictable(self) -> str | None:
        pinned = self.pinned
        return next((d for d, place in self._places.items() if not place.leases and d not in pinned), None)

    def _evict(self, digest: str) -> int:
        self.evictions += 1
        self._observer.evicted("slot")
        return self._places.pop(digest).slot
