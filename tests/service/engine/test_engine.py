"""The engine's invariants (docs/architecture.md), one by one, each with a test that tries to break it.

The runner is a fake whose output is a hash of the adapter's digest and the row's ids (fakes.py): any mix-up of
rows, adapters or slots gives another answer. Where order matters, the runner is held at its gate.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.core.catalog import ResolvedReference
from rootstock.service.engine.core.errors import (
    Draining,
    EngineError,
    Expired,
    InvalidInput,
    InvalidParameter,
    Overloaded,
    RunnerFault,
    TooLarge,
    TooLong,
    WrongTask,
)
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.engine.encode.modalities.text import Input, TextSample
from rootstock.service.engine.encode.packing import BatchLimits
from rootstock.service.engine.encode.preprocess import Preprocessor
from tests.bounds import HANG
from tests.service.engine.fakes import LONG, Bench, Clock, Unknown, expected, make_adapter, run, text, tokenizer

ALL = {"top_k": None}


def answers(bench: Bench, name: str, *values: str) -> list[Any]:
    adapter = bench.catalog.adapters[f"sha256:{name}"]
    return [expected(adapter, value, **ALL) for value in values]


class Held:
    """A tokenizer in the intake's hands that waits at its gate, and notes what it was given."""

    modality = "text"

    def __init__(self, intake: Preprocessor) -> None:
        self.gate = threading.Event()
        self.texts: list[Input] = []
        intake._reader = self  # type: ignore[assignment]

    def encode(self, value: Input, *arguments: Any, **options: Any) -> TextSample:
        self.texts.append(value)
        assert self.gate.wait(HANG)
        return tokenizer().encode(value, *arguments, **options)


async def settled(*tasks: asyncio.Task[Any]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


# 1. A reference is resolved once, at admission.


def test_a_request_keeps_the_version_it_was_admitted_with_when_the_alias_moves_while_it_waits() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        old, new = make_adapter("sha256:v1"), make_adapter("sha256:v2")
        bench.catalog.add("name", old, version=1)
        before = asyncio.create_task(bench.engine.predict("name", ["w1 w2"], ALL))
        await asyncio.to_thread(bench.catalog.loading.acquire)
        bench.catalog.add("name", new, version=2)
        after = asyncio.create_task(bench.engine.predict("name", ["w1 w2"], ALL))
        await asyncio.to_thread(bench.catalog.loading.acquire)
        bench.runner.gate.set()
        first, second = await before, await after
        assert first.resolved == ResolvedReference("name", 1, "sha256:v1")
        assert first.predictions == [expected(old, "w1 w2", **ALL)]
        assert second.resolved == ResolvedReference("name", 2, "sha256:v2")
        assert second.predictions == [expected(new, "w1 w2", **ALL)]
        assert bench.catalog.resolved == ["held", "name", "name"]
        await held

    run(body)


def test_a_request_keeps_its_version_when_the_alias_moves_while_it_loads() -> None:
    async def body(bench: Bench) -> None:
        bench.add("old", "new", warm=False)
        bench.catalog.names["name"] = bench.catalog.names["old"]
        bench.catalog.gate.clear()
        task = asyncio.create_task(bench.engine.predict("name", ["w1"], ALL))
        await asyncio.to_thread(bench.catalog.loading.acquire)
        bench.catalog.names["name"] = bench.catalog.names["new"]
        bench.catalog.gate.set()
        answer = await task
        assert answer.resolved.digest == "sha256:old"
        assert answer.predictions == answers(bench, "old", "w1")

    run(body)


# 2. Concurrent loads are one; a failed load changes nothing.


def test_a_cold_adapter_is_loaded_and_staged_once_for_all_who_ask_at_once() -> None:
    async def body(bench: Bench) -> None:
        bench.add("cold", warm=False)
        bench.catalog.gate.clear()
        tasks = [bench.ask("cold", f"w{i}") for i in range(30)]
        await asyncio.to_thread(bench.catalog.loading.acquire)
        bench.catalog.gate.set()
        assert await asyncio.gather(*tasks) == [answers(bench, "cold", f"w{i}") for i in range(30)]
        assert bench.catalog.loads == {"sha256:cold": 1}
        assert bench.runner.staged["sha256:cold"] == 1

    run(body)


def test_a_load_that_fails_fails_its_requests_and_the_next_one_loads_again() -> None:
    async def body(bench: Bench) -> None:
        (adapter,) = bench.add("cold", warm=False)
        bench.add("warm")
        del bench.catalog.adapters[adapter.digest]
        failed = await settled(bench.ask("cold", "w1"), bench.ask("cold", "w2"), bench.ask("warm", "w3"))
        assert [type(r) for r in failed] == [KeyError, KeyError, list]
        assert bench.runner.computed(adapter.digest) == 0
        bench.catalog.adapters[adapter.digest] = adapter
        assert await bench.ask("cold", "w1") == answers(bench, "cold", "w1")

    run(body)


def test_a_request_whose_adapter_cannot_be_staged_fails_alone_and_can_be_tried_again() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        bench.add("broken", "sound")
        bench.runner.unstageable.add("sha256:broken")
        tasks = [bench.ask("sound", "w1"), bench.ask("broken", "w2", "w3"), bench.ask("sound", "w4")]
        again = bench.ask("broken", "w5")
        await bench.queued()
        bench.runner.gate.set()
        first, broken, last, broken_too = await settled(*tasks, again)
        assert (first, last) == (answers(bench, "sound", "w1"), answers(bench, "sound", "w4"))
        for error in (broken, broken_too):
            assert isinstance(error, RunnerFault)
            assert "could not be loaded (MemoryError)" in str(error)
            assert "no room for sha256:broken" in str(error.__cause__)
        assert bench.runner.computed("sha256:broken") == 0
        bench.runner.unstageable.clear()
        assert await bench.ask("broken", "w2") == answers(bench, "broken", "w2")
        await held

    run(body, slots=3)


# 3. A row's answer does not depend on its neighbours.


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ABCDEFG"), st.lists(st.integers(2, 40), min_size=1, max_size=5)),
        min_size=1,
        max_size=16,
    ),
    st.integers(3, 9),
)
def test_every_answer_is_its_row_s_own_whatever_runs_beside_it(
    requests: list[tuple[str, list[int]]], slots: int
) -> None:
    async def body(bench: Bench) -> None:
        bench.add(*"ABCDEFG")
        held = await bench.hold()
        inputs = [[text(n, seed=i) for n in lengths] for i, (_, lengths) in enumerate(requests)]
        tasks = [bench.ask(name, *values) for (name, _), values in zip(requests, inputs, strict=True)]
        await bench.queued()
        bench.runner.gate.set()
        for (name, _), values, task in zip(requests, inputs, tasks, strict=True):
            assert await task == answers(bench, name, *values)
        await held

    bench = run(body, slots=slots, batches=BatchLimits(rows=8, tokens=256))
    assert len(bench.runner.rows) == 1 + sum(len(lengths) for _, lengths in requests)
    assert all(s.padded <= 256 and s.rows <= 4 * 8 for s in bench.observer.batches)


def test_tokens_are_classified_by_their_own_row_s_scores() -> None:
    async def body(bench: Bench) -> None:
        adapter = bench.catalog.add("ner", make_adapter("sha256:ner", task="token-classification"))
        bench.engine.runner.run = (
            lambda batch: [  # type: ignore[method-assign]
                np.eye(4, dtype=np.float32)[row[:length] % 4]
                for row, length in zip(batch.arrays["input_ids"], batch.lengths, strict=True)
            ]
        )
        answer = await bench.engine.predict("ner", ["w0 w1 w2", "w3"], {"ignore_labels": []})
        assert answer.task == adapter.task
        assert [[e["entity"] for e in p] for p in answer.predictions] == [["a", "b", "c"], ["d"]]

    run(body)


# 4. An unknown adapter is an error.


def test_an_unknown_adapter_raises_the_catalog_s_error_and_nothing_is_computed() -> None:
    async def body(bench: Bench) -> None:
        for reference in ("nobody", "nobody@3", "Foundation", "foundation ", ""):
            with pytest.raises(Unknown):
                await bench.engine.predict(reference, ["w1"], {})
        assert bench.runner.rows == []

    run(body)


def test_the_foundation_answers_under_its_own_name_with_its_fingerprint() -> None:
    async def body(bench: Bench) -> None:
        answer = await bench.engine.predict("foundation", ["w1"], {})
        assert answer.resolved == ResolvedReference("foundation", None, "sha256:foundation")
        assert answer.task == "feature-extraction"
        assert answer.prompt_tokens == 3
        assert bench.catalog.resolved == []

    run(body)


# 5. Every cache key holds the digest.


def test_a_new_version_under_the_same_name_answers_for_itself_at_once() -> None:
    async def body(bench: Bench) -> None:
        seen = []
        for version in range(1, 9):
            adapter = bench.catalog.add("name", make_adapter(f"sha256:v{version}"), version)
            first, again = await bench.ask("name", "w1"), await bench.ask("name", "w1")
            assert first == again == [expected(adapter, "w1", **ALL)]
            seen.append(str(first))
        assert len(set(seen)) == len(seen), "the versions tell apart"
        assert set(bench.catalog.loads.values()) == {1}

    run(body)


# 6. More adapters than slots is waiting.


@pytest.mark.parametrize("slots", [3, 4, 7])
def test_more_adapters_than_slots_wait_and_are_all_answered(slots: int) -> None:
    async def body(bench: Bench) -> None:
        names = [f"n{i}" for i in range(24)]
        bench.add(*names)
        held = await bench.hold()
        tasks = {name: [bench.ask(name, f"w{i}") for i in range(3)] for name in names}
        await bench.queued()
        bench.runner.gate.set()
        for name, mine in tasks.items():
            assert await asyncio.gather(*mine) == [answers(bench, name, f"w{i}") for i in range(3)]
        await held

    bench = run(body, slots=slots)
    assert all(stats.adapters <= slots - 2 for stats in bench.observer.batches)


def test_an_adapter_that_floods_does_not_hold_up_another() -> None:
    async def body(bench: Bench) -> None:
        bench.add("flood", "small")
        held = await bench.hold()
        flood = [bench.ask("flood", *[f"w{i}"] * 8) for i in range(30)]
        await bench.queued()
        small = bench.ask("small", "w1")
        await bench.queued()
        bench.runner.gate.set()
        await settled(held, small, *flood)
        first = next(i for i, b in enumerate(bench.runner.batches) if ("sha256:small", (2, 5, 3)) in b)
        assert first == 2, "the held batch, the flood's turn, then this one's"

    run(body, slots=3)


# 7. Cancelled and expired requests are not computed.


def test_a_request_that_is_cancelled_while_it_waits_is_not_computed() -> None:
    async def body(bench: Bench) -> None:
        bench.add("gone", "stays")
        held = await bench.hold()
        gone, stays = bench.ask("gone", "w1", "w2"), bench.ask("stays", "w3")
        await bench.queued()
        gone.cancel()
        await settled(gone)
        bench.runner.gate.set()
        assert await stays == answers(bench, "stays", "w3")
        await held
        assert bench.runner.computed("sha256:gone") == 0
        assert bench.runner.staged["sha256:gone"] == 0

    run(body)


def test_a_request_that_is_cancelled_before_it_is_tokenised_is_not_computed() -> None:
    async def body(bench: Bench) -> None:
        bench.add("plug", "gone")
        tokenising = Held(bench.engine.preprocessor)
        plug, gone, never = bench.ask("plug", "w1"), bench.ask("gone", "w2"), bench.ask("gone", "w3")
        never.cancel()
        await asyncio.sleep(0)
        gone.cancel()
        assert [type(r) for r in await settled(gone, never)] == [asyncio.CancelledError] * 2
        tokenising.gate.set()
        await bench.queued()
        assert await plug == answers(bench, "plug", "w1")
        assert tokenising.texts == ["w1", LONG], "what is gone is not tokenised"
        assert bench.runner.computed("sha256:gone") == 0
        assert bench.runner.staged["sha256:gone"] == 0

    run(body)


def test_a_request_that_is_cancelled_while_its_adapter_loads_is_not_computed() -> None:
    async def body(bench: Bench) -> None:
        bench.add("cold", warm=False)
        bench.catalog.gate.clear()
        gone, stays = bench.ask("cold", "w1"), bench.ask("cold", "w2")
        await asyncio.to_thread(bench.catalog.loading.acquire)
        gone.cancel()
        await settled(gone)
        bench.catalog.gate.set()
        assert await stays == answers(bench, "cold", "w2")
        assert bench.runner.computed("sha256:cold") == 1

    run(body)


def test_the_rest_of_a_large_request_is_not_computed_once_it_is_cancelled() -> None:
    async def body(bench: Bench) -> None:
        bench.add("large")
        bench.runner.gate.clear()
        large = bench.ask("large", *[f"w{i}" for i in range(40)])
        await bench.runner.busy()
        large.cancel()
        await settled(large)
        bench.runner.gate.set()
        bench.add("next")
        await bench.ask("next", "w1")
        assert bench.runner.computed("sha256:large") == 4

    run(body, batches=BatchLimits(rows=4))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ABCDE"), st.integers(1, 6), st.booleans()), min_size=1, max_size=14
    ).filter(lambda requests: any(not cancelled for *_, cancelled in requests))
)
def test_cancelling_any_of_the_requests_changes_no_other_answer(requests: list[tuple[str, int, bool]]) -> None:
    async def body(bench: Bench) -> None:
        bench.add(*"ABCDE")
        held = await bench.hold()
        inputs = [[text(3 + j, seed=i) for j in range(count)] for i, (_, count, _) in enumerate(requests)]
        tasks = [bench.ask(name, *values) for (name, *_), values in zip(requests, inputs, strict=True)]
        await bench.queued()
        for (*_, cancelled), task in zip(requests, tasks, strict=True):
            if cancelled:
                task.cancel()
        await asyncio.sleep(0)
        bench.runner.gate.set()
        for (name, _, cancelled), values, task in zip(requests, inputs, tasks, strict=True):
            if cancelled:
                assert task.cancelled()
            else:
                assert await task == answers(bench, name, *values)
        await held

    bench = run(body, slots=4, batches=BatchLimits(rows=4, tokens=64))
    kept = sum(count for _, count, cancelled in requests if not cancelled)
    assert len(bench.runner.rows) == 1 + kept, "exactly the rows that somebody waits for"
    assert bench.engine.admission.waiting() == (0, 0)


def test_an_expired_request_raises_expired_and_is_not_computed() -> None:
    clock = Clock()

    async def body(bench: Bench) -> None:
        bench.add("late", "fresh")
        held = await bench.hold()
        clock.now += 2
        late = bench.ask("late", "w1")
        await bench.queued()
        clock.now += 4
        fresh = bench.ask("fresh", "w2")
        await bench.queued()
        assert not late.done()
        clock.now += 1.5
        (error,) = await settled(late)
        assert isinstance(error, Expired)
        assert "5.5 s" in str(error)
        bench.runner.gate.set()
        assert await fresh == answers(bench, "fresh", "w2")
        assert isinstance((await settled(held))[0], Expired)
        assert bench.runner.computed("sha256:late") == 0

    run(body, clock=clock, limits=EngineLimits(timeout_s=5.0))


def test_times_are_the_wait_in_the_queue_and_the_time_in_the_runner() -> None:
    clock = Clock()

    async def body(bench: Bench) -> None:
        bench.add("timed")
        held = await bench.hold()
        task = asyncio.create_task(bench.engine.predict("timed", ["w1"], {}))
        await bench.queued()
        clock.now += 0.25
        bench.runner.fault = lambda digests: setattr(clock, "now", clock.now + 0.125)
        bench.runner.gate.set()
        answer = await task
        # The held batch passes the same fault: a quarter of a second, and an eighth for each of the two.
        assert (answer.queue_ms, answer.inference_ms) == (375.0, 125.0)
        await held

    run(body, clock=clock)


def test_a_request_s_own_timeout_ends_it_before_the_server_s_and_a_longer_one_changes_nothing() -> None:
    clock = Clock()

    async def body(bench: Bench) -> None:
        bench.add("a")
        held = await bench.hold()
        tasks = [
            asyncio.create_task(
                bench.engine.predict("a", [f"w{i}"], ALL, options=RequestOptions(timeout_s=seconds))
            )
            for i, seconds in enumerate([1.0, 4.0, 60.0])
        ]
        await bench.queued()
        for waited, ended in ((0.9, 0), (1.2, 1), (3.9, 1), (4.1, 2), (4.9, 2), (5.1, 3)):
            clock.now = 1000 + waited
            await bench.queued()
            assert sum(task.done() for task in tasks) == ended
        assert [type(r) for r in await settled(*tasks)] == [Expired] * 3
        bench.runner.gate.set()
        await settled(held)
        assert bench.runner.computed("sha256:a") == 0

    run(body, clock=clock, limits=EngineLimits(timeout_s=5.0))


def test_a_request_expires_while_its_adapter_loads_and_the_load_is_there_for_the_next() -> None:
    clock = Clock()

    async def body(bench: Bench) -> None:
        bench.add("cold", warm=False)
        bench.catalog.gate.clear()
        late = asyncio.create_task(
            bench.engine.predict("cold", ["w1"], ALL, options=RequestOptions(timeout_s=2.0))
        )
        patient = bench.ask("cold", "w2")
        await asyncio.to_thread(bench.catalog.loading.acquire)
        clock.now += 2.5
        (error,) = await settled(late)
        assert isinstance(error, Expired)
        assert "2.5 s" in str(error)
        bench.catalog.gate.set()
        assert await patient == answers(bench, "cold", "w2")
        assert bench.runner.computed("sha256:cold") == 1
        assert bench.catalog.loads == {"sha256:cold": 1}

    run(body, clock=clock)


# 8. Over capacity is refused at admission.


def test_over_capacity_in_items_is_refused_before_tokenising_and_the_engine_recovers() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        held = await bench.hold()
        waiting = [bench.ask("a", f"w{i}") for i in range(4)]
        await bench.queued()
        with pytest.raises(Overloaded) as refused:
            await bench.engine.predict("a", ["w9"], {})
        assert refused.value.retry_after >= 1
        assert "overloaded" in bench.observer.reasons
        bench.runner.gate.set()
        assert await asyncio.gather(*waiting) == [answers(bench, "a", f"w{i}") for i in range(4)]
        assert await bench.ask("a", "w9") == answers(bench, "a", "w9")
        assert bench.runner.computed("sha256:a") == 5
        await held

    run(body, capacity=Capacity(items=5))


def test_over_capacity_in_tokens_is_refused_and_the_engine_recovers() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b")
        held = await bench.hold()
        waiting = bench.ask("a", text(60), text(30, seed=1))
        await bench.queued()
        refused = bench.ask("b", text(11, seed=2))
        (error,) = await settled(refused)
        fits = bench.ask("b", text(10, seed=3))
        assert isinstance(error, Overloaded)
        assert "queue full (90 of 100 tokens; this request adds 11)" in str(error)
        bench.runner.gate.set()
        assert await waiting == answers(bench, "a", text(60), text(30, seed=1))
        assert await fits == answers(bench, "b", text(10, seed=3))
        assert await bench.ask("a", text(100)) == answers(bench, "a", text(100))
        await held

    run(body, capacity=Capacity(items=1000, tokens=100))


def test_an_adapter_that_floods_is_refused_while_there_is_room_for_others() -> None:
    async def body(bench: Bench) -> None:
        bench.add("floods", "other")
        held = await bench.hold()
        waiting = [bench.ask("floods", f"w{i}") for i in range(8)]
        await bench.queued()
        with pytest.raises(Overloaded, match=r"this model reached \(8 of 8 queued inputs\)") as refused:
            await bench.engine.predict("floods", ["w9"], {})
        assert refused.value.retry_after >= 1
        other = bench.ask("other", "w1", "w2")
        await bench.queued()
        bench.runner.gate.set()
        assert await other == answers(bench, "other", "w1", "w2")
        assert await asyncio.gather(*waiting) == [answers(bench, "floods", f"w{i}") for i in range(8)]
        await held

    run(body, capacity=Capacity(items=10))


def test_fan_outs_share_one_claim_however_their_lists_differ() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b", "c", "other")
        held = await bench.hold()

        def fan(*references: str) -> asyncio.Task[Any]:
            return asyncio.create_task(bench.engine.predict_many(references, ["w1"], ALL))

        fans = [fan("a", "b"), fan("b", "a"), fan("a", "c"), fan("c", "a")]
        await bench.queued()
        with pytest.raises(Overloaded, match=r"this model reached \(8 of 8 queued inputs\)"):
            await fan("b", "c")
        other = bench.ask("other", "w1")
        await bench.queued()
        bench.runner.gate.set()
        assert await other == answers(bench, "other", "w1")
        await asyncio.gather(*fans)
        await held

    run(body, capacity=Capacity(items=10))


def test_what_waits_for_its_adapter_or_the_tokeniser_counts_with_all_its_inputs() -> None:
    async def body(bench: Bench) -> None:
        bench.add("cold", warm=False)
        bench.add("a")
        bench.catalog.gate.clear()
        cold = bench.ask("cold", "w1", "w2")
        await asyncio.to_thread(bench.catalog.loading.acquire)
        assert bench.engine.admission.waiting()[0] == 2
        tokenising = Held(bench.engine.preprocessor)
        warm = bench.ask("a", "w1", "w2", text(60))
        await asyncio.sleep(0)
        items, tokens = bench.engine.admission.waiting()
        assert items == 5
        assert 30 < tokens < 120, "about as many as it has"
        (error,) = await settled(bench.ask("a", "w3", "w4"))
        assert isinstance(error, Overloaded)
        assert "queue full (5 of 6 inputs; this request adds 2)" in str(error)
        bench.catalog.gate.set()
        tokenising.gate.set()
        assert await cold == answers(bench, "cold", "w1", "w2")
        assert await warm == answers(bench, "a", "w1", "w2", text(60))
        assert bench.engine.admission.waiting() == (0, 0)

    run(body, capacity=Capacity(items=6))


def test_a_fan_out_counts_once_for_each_model_and_is_refused_as_one() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b", "c")
        with pytest.raises(TooLarge, match="6 inputs in one request"):
            await bench.engine.predict_many(["a", "b", "c"], ["w1", "w2"], ALL)
        held = await bench.hold()
        fan = asyncio.create_task(bench.engine.predict_many(["a", "b", "nobody"], ["w1"], ALL))
        await bench.queued()
        assert bench.engine.admission.waiting()[0] == 2, "what is no model's does not wait"
        bench.runner.gate.set()
        await fan
        await held
        assert bench.engine.admission.waiting() == (0, 0)

    run(body, capacity=Capacity(items=5))


def test_requests_that_were_left_make_room_at_once() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b")
        held = await bench.hold()
        stays = bench.ask("a", "w1")
        gone = [bench.ask("a", f"w{i}") for i in range(3)]
        await bench.queued()
        assert bench.engine.admission.waiting()[0] == 4
        for task in gone:
            task.cancel()
        await settled(*gone)
        new = bench.ask("b", "w1", "w2", "w3")
        await bench.queued()
        assert bench.engine.admission.waiting()[0] == 4
        bench.runner.gate.set()
        assert await new == answers(bench, "b", "w1", "w2", "w3")
        assert await stays == answers(bench, "a", "w1")
        await held

    run(body, capacity=Capacity(items=5))


def test_what_can_never_fit_is_refused_at_once_by_its_own_error() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        cases: list[tuple[list[str], type[EngineError]]] = [
            (["w1"] * 9, TooLarge),
            ([text(60)] * 2, TooLarge),
            ([LONG], TooLong),
            ([], InvalidInput),
        ]
        for values, error in cases:
            with pytest.raises(error) as raised:
                await bench.engine.predict("a", values, {})
            assert raised.value.param == "inputs"
        assert bench.runner.rows == []

    run(body, limits=EngineLimits(max_inputs=8), capacity=Capacity(tokens=100))


def test_neither_the_event_loop_nor_admission_waits_while_an_adapter_is_staged() -> None:
    async def body(bench: Bench) -> None:
        bench.add("slow", "other")
        bench.runner.staging.clear()
        bench.runner.stage_gate.clear()
        slow = bench.ask("slow", "w1")
        assert await asyncio.to_thread(bench.runner.staging.wait, 60)
        # Were any of these to wait for the batcher, nothing would ever open the gate.
        other = bench.ask("other", "w2")
        await bench.queued()
        assert bench.engine.admission.waiting() == (2, 6)
        bench.engine.batcher.resident()
        bench.engine.residency("sha256:slow")
        forgetting = asyncio.create_task(bench.engine.forget("sha256:nobody"))
        await asyncio.sleep(0)
        bench.runner.stage_gate.set()
        assert await slow == answers(bench, "slow", "w1")
        assert await other == answers(bench, "other", "w2")
        await forgetting

    run(body)


# 9. A runner's fault fails its own batch only.


def test_a_runner_that_raises_fails_that_batch_alone_and_serves_the_next() -> None:
    async def body(bench: Bench) -> None:
        bench.add("bad", "good")

        def fault(digests: set[str]) -> None:
            if "sha256:bad" in digests:
                raise MemoryError("out of memory")

        bench.runner.fault = fault
        held = await bench.hold()
        bad = [bench.ask("bad", "w1"), bench.ask("bad", "w2", "w3")]
        good = bench.ask("good", "w4")
        await bench.queued()
        bench.runner.gate.set()
        results = await settled(*bad)
        assert all(isinstance(r, RunnerFault) and "(MemoryError)" in str(r) for r in results)
        assert all("out of memory" in str(r.__cause__) for r in results if isinstance(r, RunnerFault))
        assert await good == answers(bench, "good", "w4")
        await held
        bench.runner.fault = lambda digests: None
        assert await bench.ask("bad", "w1") == answers(bench, "bad", "w1")
        assert bench.engine.alive

    run(body, slots=3)  # one serving slot: the adapters cannot share a batch


def test_an_observer_that_fails_keeps_no_answer_and_no_refusal_back(caplog: pytest.LogCaptureFixture) -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")

        def fail(told: object) -> None:
            raise OSError(f"nowhere to write {told}")

        bench.observer.refused = fail  # type: ignore[method-assign]
        bench.observer.batch = fail  # type: ignore[method-assign]
        (error,) = await settled(bench.ask("a", LONG))
        assert isinstance(error, TooLong)
        assert await bench.ask("a", "w1") == answers(bench, "a", "w1")
        (error,) = await settled(bench.ask("a", *["w1"] * 9))
        assert isinstance(error, TooLarge)
        assert bench.engine.alive

    run(body, capacity=Capacity(items=8))
    assert "nowhere to write input_too_long" in caplog.text


def test_an_output_that_is_not_finite_fails_its_own_request_only() -> None:
    async def body(bench: Bench) -> None:
        bench.add("bad", "good")
        bench.runner.not_finite.add("sha256:bad")
        held = await bench.hold()
        bad, good = bench.ask("bad", "w1", "w2"), bench.ask("good", "w1", "w2")
        await bench.queued()
        bench.runner.gate.set()
        (error,) = await settled(bad)
        assert isinstance(error, RunnerFault)
        assert "inputs[0] is not finite" in str(error)
        assert await good == answers(bench, "good", "w1", "w2")
        await held

    bench = run(body)
    assert {d for d, _ in bench.runner.batches[1]} == {"sha256:bad", "sha256:good"}, "in one batch"


@pytest.mark.parametrize("kept", [0, 1])
def test_a_runner_that_answers_for_too_few_rows_fails_that_batch_alone(kept: int) -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        whole = bench.runner.run
        bench.engine.batcher._runner = type("", (), {"run": lambda _, batch: whole(batch)[:kept]})()
        (error,) = await settled(bench.ask("a", "w1", "w2"))
        assert isinstance(error, RunnerFault)
        bench.engine.batcher._runner = bench.runner
        assert await bench.ask("a", "w1") == answers(bench, "a", "w1")

    run(body)


def test_a_task_that_cannot_read_an_output_fails_its_request_alone() -> None:
    async def body(bench: Bench) -> None:
        wrong = make_adapter("sha256:wrong", task="token-classification")
        bench.catalog.add("wrong", wrong)
        bench.add("good")
        (error,) = await settled(asyncio.create_task(bench.engine.predict("wrong", ["w1"], {})))
        assert isinstance(error, RunnerFault)
        assert await bench.ask("good", "w1") == answers(bench, "good", "w1")

    run(body)


def test_a_fault_in_one_batch_of_a_large_request_leaves_the_rest_uncomputed() -> None:
    async def body(bench: Bench) -> None:
        bench.add("large", "next")
        bench.runner.not_finite.add("sha256:large")
        (error,) = await settled(bench.ask("large", *[f"w{i}" for i in range(40)]))
        assert isinstance(error, RunnerFault)
        await bench.ask("next", "w1")
        assert bench.runner.computed("sha256:large") == 4

    run(body, batches=BatchLimits(rows=4))


# 10. Stopping finishes what was admitted and refuses the rest.


def test_stopping_answers_what_was_admitted_and_then_refuses() -> None:
    async def body(bench: Bench) -> None:
        names = [f"n{i}" for i in range(10)]
        bench.add(*names)
        held = await bench.hold()
        tasks = {name: bench.ask(name, "w1", "w2") for name in names}
        await bench.queued()
        stopping = asyncio.create_task(asyncio.to_thread(bench.engine.stop))
        # The intake's thread ends once `stop` has shut the door.
        await asyncio.to_thread(bench.engine.preprocessor.join)
        assert not bench.engine.alive
        with pytest.raises(Draining):
            await bench.engine.predict("n1", ["w1"], {})
        with pytest.raises(Draining):
            await bench.engine.replay(make_adapter("sha256:new"), ["w1"])
        bench.runner.gate.set()
        for name, task in tasks.items():
            assert await task == answers(bench, name, "w1", "w2")
        await held
        await stopping
        with pytest.raises(Draining):
            await bench.engine.predict("n1", ["w1"], {})

    run(body, slots=3)


def test_a_request_whose_adapter_is_still_loading_when_the_engine_stops_is_refused_not_lost() -> None:
    async def body(bench: Bench) -> None:
        bench.add("cold", warm=False)
        bench.catalog.gate.clear()
        task = bench.ask("cold", "w1")
        await asyncio.to_thread(bench.catalog.loading.acquire)
        await asyncio.to_thread(bench.engine.stop)
        bench.catalog.gate.set()
        assert isinstance((await settled(task))[0], Draining)

    run(body)


def test_every_request_that_races_with_stop_is_answered_or_refused() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        start = threading.Barrier(2)

        def stop() -> None:
            start.wait()
            bench.engine.stop()

        stopping = asyncio.create_task(asyncio.to_thread(stop))
        tasks = []
        await asyncio.to_thread(start.wait)
        while not stopping.done():
            tasks.append(bench.ask("a", "w1"))
            await asyncio.sleep(0)
        for result in await settled(*tasks):
            assert isinstance(result, Draining) or result == answers(bench, "a", "w1")
        await stopping

    for _ in range(10):
        run(body)


# Forgetting, replaying, and what a call may not be.


def test_forgetting_an_adapter_waits_for_the_requests_that_hold_it() -> None:
    async def body(bench: Bench) -> None:
        bench.add("old")
        await bench.ask("old", "w0")
        assert bench.engine.residency("sha256:old") == "slot"
        held = await bench.hold()
        waiting = bench.ask("old", "w1")
        await bench.queued()
        forgetting = asyncio.create_task(bench.engine.forget("sha256:old"))
        await bench.queued()
        assert not forgetting.done()
        bench.runner.gate.set()
        assert await waiting == answers(bench, "old", "w1")
        await forgetting
        await held
        # The slot is freed by the batcher before its next batch.
        bench.add("next")
        await bench.ask("next", "w1")
        assert bench.engine.residency("sha256:old") == "store"
        assert "sha256:old" not in {a.digest for a in bench.runner.placed.values()}

    run(body)


def test_forgetting_waits_for_a_request_whose_adapter_is_still_loading() -> None:
    async def body(bench: Bench) -> None:
        bench.add("cold", warm=False)
        bench.catalog.gate.clear()
        loading = bench.ask("cold", "w1")
        await asyncio.to_thread(bench.catalog.loading.acquire)
        forgetting = asyncio.create_task(bench.engine.forget("sha256:cold"))
        await bench.queued()
        assert not forgetting.done()
        bench.catalog.gate.set()
        assert await loading == answers(bench, "cold", "w1")
        await forgetting
        assert "sha256:cold" not in bench.engine.cache

    run(body)


def test_forgetting_does_not_wait_for_requests_that_were_cancelled_or_refused() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        held = await bench.hold()
        gone, refused = bench.ask("a", "w1"), bench.ask("a", LONG)
        await settled(refused)
        gone.cancel()
        await bench.engine.forget("sha256:a")
        bench.runner.gate.set()
        await held

    run(body)


def test_a_replay_gives_raw_outputs_after_everything_else_and_is_not_resident() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b")
        new = make_adapter("sha256:new")
        held = await bench.hold()
        replay = asyncio.create_task(bench.engine.replay(new, ["w1", "w2", "w3"]))
        await bench.queued()
        others = [bench.ask(name, f"w{i}") for name in "ab" for i in range(6)]
        await bench.queued()
        bench.runner.gate.set()
        for value, output in zip(["w1", "w2", "w3"], await replay, strict=True):
            assert (output == bench.runner.output(new, value)).all()
        await settled(held, *others)
        order = [{d for d, _ in batch} for batch in bench.runner.batches]
        assert order[-1] == {"sha256:new"}
        assert all("sha256:new" not in digests for digests in order[:-1])
        assert bench.runner.staged["sha256:new"] == 1, "staged once for all its inputs"
        await bench.ask("a", "w1")
        assert "sha256:new" not in {a.digest for a in bench.runner.placed.values()}
        assert bench.engine.residency("sha256:new") == "store"

    run(body, batches=BatchLimits(rows=4))


def test_two_adapters_under_verification_at_once_do_not_mix() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        new = [make_adapter(f"sha256:new{i}") for i in range(3)]
        values = ["w1", "w2", "w3"]
        replays = [asyncio.create_task(bench.engine.replay(a, values)) for a in new]
        await bench.queued()
        bench.runner.gate.set()
        for adapter, replay in zip(new, replays, strict=True):
            for value, output in zip(values, await replay, strict=True):
                assert (output == bench.runner.output(adapter, value)).all()
        await held

    run(body)


def test_a_replay_that_fails_evicts_nothing() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        await bench.ask("a", "w1")
        new = make_adapter("sha256:new")
        bench.runner.not_finite.add(new.digest)
        with pytest.raises(RunnerFault, match="not finite"):
            await bench.engine.replay(new, ["w1"])
        bench.runner.not_finite.clear()
        bench.runner.unstageable.add(new.digest)
        with pytest.raises(RunnerFault, match="could not be loaded"):
            await bench.engine.replay(new, ["w1"])
        assert bench.engine.residency("sha256:a") == "slot"
        assert bench.engine.slots.evictions == 0

    run(body, slots=3)


def test_a_call_that_the_task_does_not_take_is_refused_before_anything_is_computed() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        with pytest.raises(
            WrongTask, match="'a' supports text-classification, not token-classification; choose a token-"
        ):
            await bench.engine.predict("a", ["w1"], {}, task="token-classification")
        with pytest.raises(WrongTask, match="not summarization; choose one of the tasks text-classification, "):
            await bench.engine.predict("a", ["w1"], {}, task="summarization")
        with pytest.raises(InvalidParameter, match="no parameter 'temperature'"):
            await bench.engine.predict("a", ["w1"], {"temperature": 1})
        with pytest.raises(InvalidInput, match=r"inputs\[1\] is a pair"):
            await bench.engine.predict("foundation", ["w1", ("w1", "w2")], {})
        assert bench.runner.rows == []

    run(body)


def test_the_answer_counts_the_tokens_of_all_inputs() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a")
        answer = await bench.engine.predict("a", ["w1", "w1 w2 w3"], {})
        assert answer.prompt_tokens == 3 + 5

    run(body)
