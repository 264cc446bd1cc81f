"""Adapters in host memory: one load however many ask, nothing left of a failure, never over the byte limit."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.spec import Adapter, AdapterWeights, FoundationSpec
from rootstock.service.engine.core.adapter_cache import AdapterCache, memory_of
from tests.bounds import HANG
from tests.peft_adapters import PeftAdapter
from tests.service.engine.fakes import FakeCatalog, make_adapter

KB = 1024
EACH = memory_of(make_adapter("sha256:0", nbytes=KB))


def run(
    body: Callable[[AdapterCache, FakeCatalog], Coroutine[Any, Any, None]],
    limit: int = 10 * EACH,
    in_use: set[str] | None = None,
    evicted: list[str] | None = None,
) -> None:
    catalog = FakeCatalog()
    for i in range(8):
        catalog.add(f"{i}", make_adapter(f"sha256:{i}", nbytes=KB))
    used, left = in_use if in_use is not None else set(), evicted if evicted is not None else []
    try:
        asyncio.run(body(AdapterCache(catalog.load, limit, used.__contains__, left.append), catalog))
    finally:
        catalog.gate.set()


async def under_way(catalog: FakeCatalog) -> None:
    assert await asyncio.to_thread(catalog.loading.acquire, timeout=HANG)


def test_many_who_ask_for_one_digest_share_one_load() -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        catalog.gate.clear()
        tasks = [asyncio.create_task(cache.get("sha256:1")) for _ in range(20)]
        await under_way(catalog)
        late = asyncio.create_task(cache.get("sha256:1"))
        await asyncio.sleep(0)
        catalog.gate.set()
        adapters = await asyncio.gather(*tasks, late)
        assert all(a is catalog.adapters["sha256:1"] for a in adapters)
        assert catalog.loads == {"sha256:1": 1}

    run(body)


def test_different_digests_load_side_by_side_and_stay_apart() -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        catalog.gate.clear()
        tasks = {d: asyncio.create_task(cache.get(d)) for d in ("sha256:1", "sha256:2")}
        await under_way(catalog)
        await under_way(catalog)
        catalog.gate.set()
        assert {d: (await t).digest for d, t in tasks.items()} == {d: d for d in tasks}

    run(body)


@pytest.mark.parametrize("leaving", [{0}, {1, 3}, {0, 1, 2, 3, 4}])
def test_who_leaves_does_not_cancel_the_load_for_the_others(leaving: set[int]) -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        catalog.gate.clear()
        tasks = [asyncio.create_task(cache.get("sha256:1")) for _ in range(5)]
        await under_way(catalog)
        for i in leaving:
            tasks[i].cancel()
        late = asyncio.create_task(cache.get("sha256:1"))
        await asyncio.sleep(0)
        catalog.gate.set()
        results = await asyncio.gather(*tasks, late, return_exceptions=True)
        for i, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError if i in leaving else Adapter)
        assert catalog.loads == {"sha256:1": 1}
        assert "sha256:1" in cache

    run(body)


def test_a_failed_load_fails_all_who_wait_leaves_nothing_and_is_tried_again() -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        adapter = catalog.adapters.pop("sha256:1")
        catalog.gate.clear()
        tasks = [asyncio.create_task(cache.get("sha256:1")) for _ in range(5)]
        await under_way(catalog)
        catalog.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(r, KeyError) for r in results)
        assert catalog.loads["sha256:1"] == 1
        assert "sha256:1" not in cache
        assert cache.nbytes == 0
        catalog.adapters["sha256:1"] = adapter
        assert await cache.get("sha256:1") is adapter
        assert catalog.loads["sha256:1"] == 2

    run(body)


def test_what_is_dropped_while_it_loads_is_answered_but_not_kept() -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        catalog.gate.clear()
        first = asyncio.create_task(cache.get("sha256:1"))
        await under_way(catalog)
        cache.drop("sha256:1")
        catalog.gate.set()
        assert (await first).digest == "sha256:1"
        assert "sha256:1" not in cache
        assert cache.nbytes == 0
        await cache.get("sha256:1")
        assert catalog.loads["sha256:1"] == 2
        assert cache.nbytes == EACH

    run(body)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["get", "get", "peek", "put", "drop"]), st.integers(0, 4)),
        min_size=8,
        max_size=40,
    ),
    st.integers(0, 4),
)
def test_the_least_recently_used_leave_while_the_bytes_exceed_the_limit(
    steps: list[tuple[str, int]], limit: int
) -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        recent: list[str] = []
        for action, i in steps:
            digest = f"sha256:{i}"
            held, loads = digest in recent, catalog.loads[digest]
            used = True
            if action == "get":
                assert (await cache.get(digest)).digest == digest
                assert catalog.loads[digest] == loads + (not held), "what is held is not loaded again"
            elif action == "peek":
                used = cache.peek(digest) is not None
                assert used == held
            elif action == "put":
                cache.put(catalog.adapters[digest])
            else:
                cache.drop(digest)
                used = False
                recent = [d for d in recent if d != digest]
            if used:
                recent = ([d for d in recent if d != digest] + [digest])[-max(limit, 1) :]
            assert [d for d in (f"sha256:{n}" for n in range(8)) if d in cache] == sorted(recent)
            assert cache.nbytes == EACH * len(recent)

    run(body, limit * EACH)


def test_what_was_asked_for_last_stays_when_another_is_loaded() -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        for digest in ("sha256:1", "sha256:2", "sha256:1", "sha256:3"):
            await cache.get(digest)
        assert [d in cache for d in ("sha256:1", "sha256:2", "sha256:3")] == [True, False, True]

    run(body, limit=2 * EACH)


def test_one_adapter_beyond_the_limit_is_kept_alone() -> None:
    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        await cache.get("sha256:1")
        await cache.get("sha256:2")
        assert "sha256:1" not in cache
        assert "sha256:2" in cache

    run(body, limit=10)


def test_what_is_in_use_stays_over_the_limit_and_goes_when_it_is_not() -> None:
    held = {"sha256:1", "sha256:2"}
    left: list[str] = []

    async def body(cache: AdapterCache, catalog: FakeCatalog) -> None:
        for digest in ("sha256:1", "sha256:2", "sha256:3", "sha256:4"):
            await cache.get(digest)
        assert left == ["sha256:3"], "the least recently used one that is not in use"
        assert cache.nbytes == 3 * EACH
        held.clear()
        cache.trim()
        assert left == ["sha256:3", "sha256:1"]
        assert cache.nbytes == 2 * EACH

    run(body, limit=2 * EACH, in_use=held, evicted=left)


TEXTS = {
    "none": ((), ""),
    "many labels": (tuple(f"label-{i:06}" for i in range(20_000)), ""),
    "long labels": (tuple("x" * 100_000 + str(i) for i in range(9)), ""),
    "wide labels": (tuple("€" * 100_000 + str(i) for i in range(9)), ""),
    "a long prefix": (("a", "b"), "p" * 2**20),
}


@pytest.mark.parametrize("texts", TEXTS)
def test_the_texts_of_an_adapter_are_counted_as_what_python_allocates_for_them(texts: str) -> None:
    labels, prefix = TEXTS[texts]
    bare = replace(make_adapter("sha256:0"), labels=())
    tracemalloc.start()
    try:
        copies = replace(
            bare,
            labels=tuple(label[:1] + label[1:] for label in labels),
            preprocessing=replace(bare.preprocessing, prefix=prefix[:1] + prefix[1:]),
        )
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.95 * allocated <= memory_of(copies) <= 1.2 * allocated + KB * 4


@pytest.mark.parametrize("kind", ["scalar", "first", "second", "embedder"])
def test_what_an_adapter_is_counted_as_is_what_python_allocates_and_maps_for_it(
    kind: str, peft_saved: dict[str, PeftAdapter], spec: FoundationSpec
) -> None:
    def load(count: int) -> list[Adapter]:
        data = peft_saved[kind].zip()
        return [open_bundle(data, Limits(), spec).adapter(spec, 64) for _ in range(count)]

    load(1)
    tracemalloc.start()
    try:
        held = load(8)
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # tracemalloc sees the heap alone.
    arrays = [array for one in held for update in one.weights.sites.values() for array in update.arrays()]
    pages = {id(array.base): array.base.base for array in arrays if array.base is not None}.values()
    allocated += sum(len(one.obj) for one in pages if isinstance(one, memoryview))
    counted = sum(memory_of(adapter) for adapter in held)
    assert 0.95 * allocated <= counted <= 1.2 * allocated
    assert counted >= sum(adapter.weights.nbytes for adapter in held)


def test_buffers_that_arrays_share_are_counted_once_and_whole() -> None:
    shared = np.zeros((4, KB), np.float32)
    adapter = replace(make_adapter("sha256:1"), weights=AdapterWeights({}, {"a": shared[:1], "b": shared[1:3]}))
    other = replace(adapter, weights=AdapterWeights({}, {"a": shared[:1].copy(), "b": shared[1:3].copy()}))
    assert memory_of(adapter) - memory_of(other) == KB * 4
