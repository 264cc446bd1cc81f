"""Shadows of requests in the engine: behind all other work, apart from it, and in no report."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import EngineError, Expired, Overloaded, RunnerFault, TooLong
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.encode.engine import EngineLimits
from tests.service.engine.fakes import LONG, Bench, Clock, expected, run, text

SHADOW = RequestOptions("acme", "low", shadow=True)
# The most inputs of a queue of which one is not yet a sixteenth.
QUEUE = Capacity(items=32)


def shadow(bench: Bench, name: str, *values: str) -> asyncio.Task[Answer]:
    return asyncio.create_task(bench.engine.predict(name, list(values), {"top_k": None}, options=SHADOW))


def order(bench: Bench) -> list[set[str]]:
    """The adapters of each batch that ran."""
    return [{digest.removeprefix("sha256:") for digest, _ in rows} for rows in bench.runner.batches]


def test_a_shadow_runs_after_all_other_work_and_shares_no_batch_with_it() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        bench.add("old", "new", "other")
        first = shadow(bench, "new", "w1")
        await bench.queued()
        later = [bench.ask(name, text(16, i)) for i, name in enumerate(["old", "other"] * 4)]
        await bench.queued()
        bench.runner.gate.set()
        answer = await first
        # Every request was answered before the shadow that came before it.
        assert all(task.done() for task in later)
        assert answer.predictions == [expected(bench.catalog.adapters["sha256:new"], "w1", top_k=None)]
        await asyncio.gather(held, *later)

    batches = order(run(body))
    assert batches[-1] == {"new"}
    assert all("new" not in batch for batch in batches[:-1])


def test_a_fault_of_a_shadow_fails_no_request() -> None:
    async def body(bench: Bench) -> None:
        def fault(digests: set[str]) -> None:
            if "sha256:new" in digests:
                raise ValueError("a broken version")

        bench.runner.fault = fault
        held = await bench.hold()
        bench.add("old", "new")
        broken = shadow(bench, "new", "w1")
        await bench.queued()
        asked = [bench.ask("old", f"w{i}") for i in range(1, 5)]
        await bench.queued()
        bench.runner.gate.set()
        await asyncio.gather(held, *asked)
        with pytest.raises(RunnerFault):
            await broken

    run(body)


def test_a_shadow_is_in_no_report_and_in_no_count_of_what_waits() -> None:
    async def body(bench: Bench) -> None:
        bench.add("new")
        answer = await shadow(bench, "new", "w1")
        assert answer.resolved.digest == "sha256:new"
        with pytest.raises(TooLong):
            await shadow(bench, "new", LONG)
        held = await bench.hold()
        before = bench.engine.admission.waiting()
        waiting = shadow(bench, "new", "w2")
        await asyncio.sleep(0)
        assert bench.engine.admission.waiting() == before
        bench.runner.gate.set()
        await asyncio.gather(held, waiting)

    observer = run(body).observer
    assert [record.resolved.name for record in observer.ends] == ["held"]
    assert observer.reasons == []
    assert sum(len(stats.waits) for stats in observer.batches) == 1


def test_a_busy_server_refuses_shadows_and_admits_requests() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        bench.add("old", "new")
        first = shadow(bench, "new", "w1")
        await bench.queued()
        asked = [bench.ask("old", f"w{i}") for i in range(1, 6)]
        await bench.queued()
        with pytest.raises(Overloaded):
            await shadow(bench, "new", "w2")
        asked += [bench.ask("old", f"w{i}") for i in range(6, 20)]
        await bench.queued()
        bench.runner.gate.set()
        assert len(await asyncio.gather(held, first, *asked)) == 21

    assert "overloaded" not in run(body, capacity=QUEUE).observer.reasons


def test_shadows_take_no_room_from_requests() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        bench.add("old", "new")
        shadows = [shadow(bench, "new", *["w1"] * 8) for _ in range(8)]
        await bench.queued()
        # As many requests as an empty queue takes.
        asked: list[asyncio.Task[Any]] = [bench.ask("old", *["w2"] * 32)]
        await bench.queued()
        bench.runner.gate.set()
        await asyncio.gather(held, *shadows, *asked)

    run(body, capacity=QUEUE)


def test_a_shadow_that_no_idle_moment_comes_for_expires_and_is_not_computed() -> None:
    async def body(bench: Bench) -> None:
        assert bench.clock is not None
        held = await bench.hold()
        bench.add("new")
        waiting = shadow(bench, "new", "w1")
        await bench.queued()
        bench.clock.now += 31
        with pytest.raises(Expired):
            await waiting
        bench.runner.gate.set()
        with pytest.raises(EngineError):
            await held

    bench = run(body, clock=Clock(), limits=EngineLimits(timeout_s=30))
    assert bench.runner.computed("sha256:new") == 0
