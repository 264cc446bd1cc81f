"""Simulated adapters lie where the engine's would."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.spec import Adapter
from rootstock.loadtest.cluster.places import AdapterPlaces
from rootstock.loadtest.cluster.traffic import zipf
from rootstock.service.engine.core import adapter_cache
from rootstock.service.engine.core.adapter_cache import AdapterCache
from rootstock.service.engine.core.slots import Slots


class _Plain:
    """An adapter of one byte."""

    def __init__(self, digest: str) -> None:
        self.digest = digest


class _PlainHost:
    slots = 6

    def stage(self, adapter: Adapter) -> Any:
        return adapter

    def place(self, slot: int, staged: Any) -> None:
        pass

    def clear(self, slot: int) -> None:
        pass


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 4)), max_size=60), st.integers(2, 8))
def test_a_trace_gives_the_loads_of_the_engine_s_cache_and_slots(
    trace: list[tuple[int, int]], memory: int
) -> None:
    """A request holds its adapter, and leases its slot, until so many more requests have come."""
    places = AdapterPlaces(memory, _PlainHost.slots - 2)
    held: Counter[int] = Counter()
    slots = Slots(cast(Any, _PlainHost()), cast(Adapter, _Plain("foundation")))
    cache = AdapterCache(
        cast(Any, None), memory, lambda digest: int(digest) in held, lambda digest: slots.drop(digest) or None
    )
    under_way: list[tuple[int, int, bool]] = []
    memory_loads = [0, 0]
    try:
        adapter_cache.memory_of, original = cast(Any, lambda adapter: 1), adapter_cache.memory_of
        for number, (adapter, stay) in enumerate(trace):
            held[adapter] += 1
            if not places.touch(adapter):
                memory_loads[0] += 1
                places.put(adapter, held)
            if cache.peek(str(adapter)) is None:
                memory_loads[1] += 1
                cache.put(cast(Adapter, _Plain(str(adapter))))
            leased = places.lease(adapter)
            assert leased == (slots.lease(cast(Adapter, _Plain(str(adapter)))) is not None)
            under_way.append((number + stay, adapter, leased))
            for ended in [one for one in under_way if one[0] <= number]:
                under_way.remove(ended)
                if ended[2]:
                    places.release(ended[1])
                    slots.release(str(ended[1]))
                held[ended[1]] -= 1
                if not held[ended[1]]:
                    del held[ended[1]]
                places.trim(held)
                cache.trim()
            assert memory_loads[0] == memory_loads[1]
            assert places.slot_loads == slots.loads
    finally:
        adapter_cache.memory_of = original
        cache.close()


def test_the_hit_rate_is_that_of_the_distances_in_the_trace() -> None:
    """An adapter is in an LRU of n places exactly if at most n - 1 others were used since (Mattson 1970)."""
    draws = zipf(200, 0)
    trace = [next(draws) for _ in range(4000)]
    places, hits, expected, last = AdapterPlaces(50, 10), 0, 0, {}
    for number, adapter in enumerate(trace):
        hit = places.touch(adapter)
        hits += hit
        if not hit:
            places.put(adapter, ())
        if adapter in last:
            expected += len(set(trace[last[adapter] + 1 : number])) < 50
        last[adapter] = number
    assert hits == expected
    assert 0.5 < hits / len(trace) < 0.95


def test_zipf_traffic_has_the_shares_that_its_name_says() -> None:
    draws = zipf(5, 3)
    counts = np.bincount([next(draws) for _ in range(50_000)])
    shares = 1 / np.arange(1, 6)
    assert np.abs(counts / 50_000 - shares / shares.sum()).max() < 0.01
