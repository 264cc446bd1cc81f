"""The places of adapters in a simulated replica: host memory and slots, as the engine fills and empties them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container


class AdapterPlaces:
    """Host memory for `memory` adapters of one size, and `slots` slots, both by the least recent use.

    It counts as `core/adapter_cache.py` and `core/slots.py` do, without the adapters: one in use stays in memory,
    a leased one stays in its slot, and one that leaves memory leaves its slot.
    """

    def __init__(self, memory: int, slots: int) -> None:
        self._memory: OrderedDict[int, None] = OrderedDict()
        self._most = memory
        self._places: OrderedDict[int, int] = OrderedDict()
        self._slots = slots
        self.slot_loads = 0

    def touch(self, adapter: int) -> bool:
        """Tell whether an adapter is in memory, which is a use of it."""
        if adapter not in self._memory:
            return False
        self._memory.move_to_end(adapter)
        return True

    def put(self, adapter: int, in_use: Container[int]) -> None:
        """Put an adapter into memory, and let others leave that are not in use."""
        self._memory[adapter] = None
        self._memory.move_to_end(adapter)
        self.trim(in_use)

    def trim(self, in_use: Container[int]) -> None:
        """Let adapters leave memory while there are too many. The one added last stays."""
        excess = len(self._memory) - self._most
        if excess <= 0:
            return
        last = next(reversed(self._memory))
        leaving: list[int] = []
        for adapter in self._memory:
            if len(leaving) == excess:
                break
            if adapter != last and adapter not in in_use:
                leaving.append(adapter)
        for adapter in leaving:
            del self._memory[adapter]
            if not self._places.get(adapter):
                self._places.pop(adapter, None)

    def lease(self, adapter: int) -> bool:
        """Lease the adapter's slot, and load it into one first if need be. Return False if all are leased."""
        if adapter not in self._places:
            if len(self._places) >= self._slots:
                free = next((held for held, leases in self._places.items() if not leases), None)
                if free is None:
                    return False
                del self._places[free]
            self.slot_loads += 1
            self._places[adapter] = 0
        self._places[adapter] += 1
        self._places.move_to_end(adapter)
        return True

    def release(self, adapter: int) -> None:
        """Give back one lease."""
        self._places[adapter] -= 1
