"""Pins and loading ahead: what a name comes to mean is in memory before it is asked for, and pins stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from rootstock.adapters.reference import FOUNDATION
from rootstock.adapters.registry import Resolution, SplitCandidate
from rootstock.service.engine.core.adapter_cache import memory_of
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.foundation_host import FoundationHost
from rootstock.service.foundations import Foundations
from rootstock.service.pins import Pins
from tests.bounds import HANG
from tests.service.engine.fakes import SPEC, Bench, make_adapter, run

# Host memory for two adapters.
TWO = EngineLimits(cache_bytes=2 * memory_of(make_adapter("sha256:a")))


def resolve(bench: Bench, reference: str) -> Resolution:
    """Resolve a name; of `a+b`, the adapter `b` is a candidate of the alias that `a` means."""
    name, *others = reference.split("+")
    target = bench.catalog.resolve(name)
    candidates = tuple(
        SplitCandidate(number, bench.catalog.resolve(other).digest, None, "text-classification", 10.0)
        for number, other in enumerate(others, 2)
    )
    return Resolution(target.name, target.version or 1, target.digest, candidates=candidates)


def with_pins(body: Callable[[Bench, Pins], Coroutine[Any, Any, None]], *references: str, slots: int = 5) -> None:
    async def inside(bench: Bench) -> None:
        registry = cast(Any, SimpleNamespace(resolve=partial(resolve, bench)))
        catalog = cast(Any, SimpleNamespace(spec=SPEC))
        host = FoundationHost(FOUNDATION, (bench.engine,), catalog, *3 * (cast(Any, None),))
        pins = Pins(Foundations([host], registry, {"org/short:v1": "a"}), registry, references)
        try:
            await body(bench, pins)
        finally:
            bench.catalog.gate.set()
            await pins.close()

    run(inside, slots=slots, limits=TWO)


async def others_pass(bench: Bench) -> None:
    names = [f"other-{i}" for i in range(10)]
    bench.add(*names, warm=False)
    for name in names:
        await bench.ask(name, "w1")


async def settled(pins: Pins) -> None:
    while pins._tasks:
        await asyncio.gather(*pins._tasks)


def test_a_pinned_adapter_is_in_its_slot_before_the_first_request_and_stays_there() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", "b", warm=False)
        await pins.follow()
        await others_pass(bench)
        assert [bench.engine.residency(f"sha256:{name}") for name in "ab"] == ["slot", "slot"]
        assert bench.runner.staged["sha256:a"] == 1
        await bench.ask("a", "w2")
        assert (bench.runner.staged["sha256:a"], bench.catalog.loads["sha256:a"]) == (1, 1)

    with_pins(body, "a", "b")


def test_a_pinned_alias_with_a_split_pins_each_of_its_versions() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", "b", warm=False)
        await pins.follow()
        await others_pass(bench)
        assert [bench.engine.residency(f"sha256:{name}") for name in "ab"] == ["slot", "slot"]

    with_pins(body, "a+b")


def test_candidates_of_a_split_never_take_the_slots_that_other_pins_or_requests_need() -> None:
    """Whoever may publish can split a pinned alias, and the server has to start all the same."""

    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", "b", "c", "d", warm=False)
        await pins.follow()
        assert bench.engine.slots.pinned == {"sha256:a", "sha256:d"}
        bench.catalog.names["d"] = bench.catalog.names["a"]
        await pins.follow()
        assert bench.engine.slots.pinned == {"sha256:a", "sha256:b"}

    with_pins(body, "a+b+c", "d", slots=5)


def test_a_candidate_that_does_not_load_leaves_the_alias_s_own_version_pinned() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", "b", warm=False)
        bench.catalog.adapters.pop("sha256:b")
        await pins.follow()
        assert bench.engine.slots.pinned == {"sha256:a"}

    with_pins(body, "a+b")


def test_a_pin_may_be_a_served_name() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", warm=False)
        await pins.follow()
        await others_pass(bench)
        assert bench.engine.residency("sha256:a") == "slot"

    with_pins(body, "Org/Short:v1")


def test_a_pin_follows_its_name_once_the_new_adapter_is_in_memory() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", "new", warm=False)
        await pins.follow()
        bench.catalog.names["a"] = bench.catalog.names["new"]
        bench.catalog.gate.clear()
        pins.moved("new")
        assert await asyncio.to_thread(bench.catalog.loading.acquire, timeout=HANG)
        assert bench.engine.slots.pinned == {"sha256:a"}, "the old one stays while the new one loads"
        bench.catalog.gate.set()
        await settled(pins)
        await others_pass(bench)
        assert bench.engine.slots.pinned == {"sha256:new"}
        assert bench.engine.residency("sha256:new") == "slot"
        assert bench.engine.residency("sha256:a") == "store"

    with_pins(body, "a")


def test_a_change_of_a_tenant_loads_the_tenant_s_adapter_ahead() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", "acme/a", warm=False)
        await pins.follow()
        pins.seen_by("acme").moved("a")
        await settled(pins)
        assert bench.catalog.loads["sha256:acme/a"] == 1
        assert bench.catalog.loads["sha256:a"] == 0
        pins.seen_by("default").moved("a")
        await settled(pins)
        assert bench.catalog.loads["sha256:a"] == 1

    with_pins(body)


def test_what_cannot_be_resolved_or_loaded_is_pinned_when_it_can_be_and_hinders_no_other() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", "lost", warm=False)
        lost = bench.catalog.adapters.pop("sha256:lost")
        await pins.follow()
        assert bench.engine.slots.pinned == {"sha256:a"}
        bench.add("later", warm=False)
        bench.catalog.adapters[lost.digest] = lost
        pins.moved("later")
        await settled(pins)
        assert bench.engine.slots.pinned == {"sha256:a", "sha256:later", "sha256:lost"}
        del bench.catalog.names["a"]
        pins.moved()
        await settled(pins)
        assert bench.engine.slots.pinned == {"sha256:later", "sha256:lost"}

    with_pins(body, "a", "lost", "later", slots=6)


def test_loading_ahead_shares_its_one_load_with_the_request_that_comes_meanwhile() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        bench.add("a", warm=False)
        bench.catalog.gate.clear()
        pins.moved("a")
        assert await asyncio.to_thread(bench.catalog.loading.acquire, timeout=HANG)
        asked = bench.ask("a", "w1")
        await asyncio.sleep(0)
        bench.catalog.gate.set()
        await asked
        await settled(pins)
        assert bench.catalog.loads["sha256:a"] == 1

    with_pins(body)


def test_loading_ahead_that_fails_is_not_raised_and_leaves_the_error_to_the_request() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        adapter = bench.add("a", warm=False)[0]
        del bench.catalog.adapters[adapter.digest]
        pins.moved("a")
        await settled(pins)
        bench.catalog.adapters[adapter.digest] = adapter
        await bench.ask("a", "w1")

    with_pins(body)


def test_an_adapter_that_leaves_host_memory_leaves_its_slot() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        await others_pass(bench)
        await bench.ask("other-0", "w1")
        held = {digest for digest in bench.catalog.adapters if digest in bench.engine.cache}
        assert len(held) == 2
        assert bench.engine.slots.resident() <= held

    with_pins(body, slots=8)


def test_what_requests_held_over_the_limit_goes_when_they_are_answered() -> None:
    async def body(bench: Bench, pins: Pins) -> None:
        held = await bench.hold()
        names = [f"a-{i}" for i in range(4)]
        bench.add(*names, warm=False)
        asked = [bench.ask(name, "w1") for name in names]
        for _ in names:
            assert await asyncio.to_thread(bench.catalog.loading.acquire, timeout=HANG)
        bench.runner.gate.set()
        await asyncio.gather(held, *asked)
        assert bench.engine.cache.nbytes <= TWO.cache_bytes
        assert all(bench.catalog.loads[f"sha256:{name}"] == 1 for name in names)

    with_pins(body)
