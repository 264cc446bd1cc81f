"""What the engine tells of its work: where each answer's time went, its cost, and what moved between tiers."""

from __future__ import annotations

import asyncio

import pytest

from rootstock.service.engine.core.errors import Draining, InvalidInput, RunnerFault, TooLarge
from rootstock.service.engine.core.observer import Observer, Observers
from rootstock.service.engine.encode.engine import Engine, EngineLimits
from tests.bounds import HANG
from tests.service.engine.fakes import SPEC, Bench, Clock, FakeCatalog, FakeRunner, run, text, tokenizer


def test_an_answer_s_time_is_that_of_loading_of_waiting_and_of_its_batches() -> None:
    async def body(bench: Bench) -> None:
        assert bench.clock is not None
        held = await bench.hold()
        bench.add("cold", warm=False)
        bench.catalog.gate.clear()
        asked = asyncio.create_task(bench.engine.predict("cold", ["w1", "w2"], {}))
        assert await asyncio.to_thread(bench.catalog.loading.acquire, timeout=HANG)
        bench.clock.now += 3
        bench.catalog.gate.set()
        await bench.engine.cache.get("sha256:cold")
        for _ in range(10):  # steps from there to the tokeniser's line
            await asyncio.sleep(0)
        await bench.queued()
        bench.clock.now += 5
        bench.runner.gate.set()
        await bench.runner.busy()
        answer = await asked
        await held
        assert (answer.load_ms, answer.tokenize_ms, answer.queue_ms) == (3000, 0, 5000)
        assert (answer.inference_ms, answer.total_ms) == (0, 8000)
        ends = {end.reference: end for end in bench.observer.ends}
        assert (ends["held"].queue, ends["held"].inference) == (0, 8)
        assert (ends["cold"].load, ends["cold"].queue, ends["cold"].total) == (3, 5, 8)

    run(body, clock=Clock(), limits=EngineLimits(timeout_s=100))


def test_the_seconds_of_the_batches_are_shared_out_among_their_requests_by_tokens() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        bench.add("long", "short")
        asked = [bench.ask("long", text(24)), bench.ask("short", text(20))]
        await bench.queued()
        bench.runner.gate.set()
        await asyncio.gather(held, *asked)

    bench = run(body)
    ends = {end.reference: end.request for end in bench.observer.ends}
    assert sum(request.progress.compute for request in ends.values()) == pytest.approx(
        sum(stats.seconds for stats in bench.observer.batches)
    )
    assert ends["long"].progress.batch is ends["short"].progress.batch
    assert ends["long"].progress.compute == pytest.approx(24 / 20 * ends["short"].progress.compute)


def test_observers_of_observers_are_one_list_and_a_fault_of_one_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Faulty(Observer):
        def refused(self, reason: str) -> None:
            raise RuntimeError(reason)

    class Told(Observer):
        def __init__(self) -> None:
            self.reasons: list[str] = []

        def refused(self, reason: str) -> None:
            self.reasons.append(reason)

    faulty, told, last = Faulty(), Told(), Told()
    nested = Observers(Observers(faulty, Observers(told)), last)
    assert nested.observers == (faulty, told, last)
    nested.refused("full")
    assert (told.reasons, last.reasons, len(caplog.records)) == (["full"], ["full"], 1)
    engine = Engine(SPEC, FakeRunner(6), tokenizer(), FakeCatalog(), nested)
    assert isinstance(engine.slots._observer, Observers)
    assert engine.slots._observer.observers == nested.observers


def test_loads_and_evictions_are_told_by_tier() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b", warm=False)
        for name in "aba":
            await bench.ask(name, "w1")

    bench = run(body, slots=3)  # one serving slot
    moves = bench.observer.moves
    assert moves[:5] == [("in", "memory"), ("in", "slot"), ("in", "memory"), ("out", "slot"), ("in", "slot")]
    assert moves[5:] == [("out", "slot"), ("in", "slot")]


def test_what_leaves_host_memory_is_told_to_leave_its_slot_as_well() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b", warm=False)
        for name in "ab":
            await bench.ask(name, "w1")

    moves = run(body, limits=EngineLimits(cache_bytes=1)).observer.moves
    assert moves.index(("out", "memory")) < moves.index(("out", "slot"))
    assert moves.count(("out", "memory")) == 1


def test_a_load_that_fails_is_told_as_such_and_so_is_the_answer_that_it_cost() -> None:
    async def body(bench: Bench) -> None:
        bench.add("broken")
        bench.runner.unstageable.add("sha256:broken")
        with pytest.raises(RunnerFault) as raised:
            await bench.engine.predict("broken", ["w1"], {})
        assert isinstance(raised.value.__cause__, MemoryError), "the log shows what the runner raised"
        bench.add("lost", warm=False)
        del bench.catalog.adapters["sha256:lost"]
        with pytest.raises(KeyError):
            await bench.engine.predict("lost", ["w1"], {})

    bench = run(body)
    assert bench.observer.moves == [("failed", "slot"), ("failed", "memory")]
    (end,) = bench.observer.ends
    assert (end.reference, end.error and end.error.code) == ("broken", "runner_fault")


def test_whatever_is_refused_before_it_waits_is_told_once() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        with pytest.raises(InvalidInput):
            await bench.engine.predict("a", [], {})
        with pytest.raises(TooLarge):
            await bench.engine.predict("a", ["w1"] * 5, {})
        bench.engine.preprocessor.close()
        with pytest.raises(Draining):
            await bench.engine.predict("a", ["w1"], {})
        assert bench.observer.reasons == ["invalid_input", "request_too_large", "draining"]

    run(body, limits=EngineLimits(max_inputs=4))
