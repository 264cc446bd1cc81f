"""One call under many references, and inputs that become several rows (fakes.py says what the runner gives)."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from rootstock.adapters.spec import Adapter, Preprocessing
from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.core.answer import Answer
from rootstock.service.engine.core.errors import (
    Draining,
    Expired,
    InvalidInput,
    InvalidParameter,
    Overloaded,
    RunnerFault,
    TooLarge,
    TooLong,
)
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.encode.engine import EngineLimits
from rootstock.service.engine.encode.modalities.text import Question, TextSample, Tokenizer
from rootstock.service.engine.encode.packing import BatchLimits
from rootstock.service.engine.encode.postprocess import Postprocessor
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.text_task import TextTask
from tests.bounds import HANG
from tests.service.engine.fakes import (
    LONG,
    Bench,
    Clock,
    Unknown,
    expected,
    make_adapter,
    raw_output,
    run,
    text,
    tokenizer,
)

ALL = {"top_k": None}
NAMES = [f"n{i}" for i in range(20)]
VALUES = ["w1 w2", "w3", text(9)]
NLI = {"candidate_labels": ["w5", "w6 w7", "w8"]}


def add_nli(bench: Bench, name: str = "nli") -> Adapter:
    adapter = make_adapter(f"sha256:{name}", task="zero-shot-classification")
    adapter = bench.catalog.add(name, replace(adapter, labels=("entailment", "b", "c", "d")))
    bench.engine.cache.put(adapter)
    return adapter


def labelled(adapter: Adapter, value: str) -> tuple[Any, int]:
    """What it must answer for a text, and how many tokens that takes."""
    task = TASKS[adapter.task]
    rows = list(task.encode(value, adapter.preprocessing, NLI, tokenizer(), most=99))
    raws = [raw_output(adapter.digest, row.ids) for row in rows]
    return task.predict(raws, rows, adapter, NLI, tokenizer()), sum(len(row.ids) for row in rows)


def predictions(outcomes: list[Answer | Exception]) -> list[Any]:
    return [o.predictions if isinstance(o, Answer) else type(o) for o in outcomes]


async def many(bench: Bench, names: list[str], *values: str, **parameters: Any) -> list[Answer | Exception]:
    return await bench.engine.predict_many(names, list(values), {**ALL, **parameters})


# One call under many references.


def test_every_reference_answers_the_same_inputs_in_order_in_one_batch() -> None:
    async def body(bench: Bench) -> None:
        adapters = bench.add(*NAMES)
        outcomes = await many(bench, NAMES, *VALUES)
        assert predictions(outcomes) == [[expected(a, v, **ALL) for v in VALUES] for a in adapters]
        for outcome, adapter in zip(outcomes, adapters, strict=True):
            assert isinstance(outcome, Answer)
            assert outcome.resolved.digest == adapter.digest
            assert outcome.prompt_tokens == 4 + 3 + 9
            assert outcome.inference_ms >= 0
        assert len(bench.runner.batches) == 1

    run(body, slots=22, batches=BatchLimits(rows=60, tokens=4096, padding=1))


def test_a_text_is_tokenised_once_for_all_who_tokenise_it_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[tuple[str, int]] = Counter()
    encode = Tokenizer.encode

    def counted(
        self: Tokenizer, value: Any, preprocessing: Preprocessing, *rest: Any, **named: Any
    ) -> TextSample:
        seen[value, preprocessing.max_length] += 1
        return encode(self, value, preprocessing, *rest, **named)

    monkeypatch.setattr(Tokenizer, "encode", counted)

    async def body(bench: Bench) -> None:
        adapters = bench.add("a", "b", "c")
        shorter = replace(adapters[2], preprocessing=Preprocessing(8))
        bench.engine.cache.put(bench.catalog.add("c", shorter))
        await bench.engine.predict_many(["a", "b", "foundation", "c"], VALUES[:2], {})
        assert seen == {(value, most): 1 for value in VALUES[:2] for most in (512, 8)}

    run(body)


def test_the_event_loop_is_woken_once_for_a_call() -> None:
    async def body(bench: Bench) -> None:
        bench.add(*NAMES)
        loop = asyncio.get_running_loop()
        wakes: list[Any] = []
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *a, **k: (wakes.append(a), wake(*a, **k))[1]  # type: ignore[method-assign]
        await many(bench, NAMES, *VALUES)
        assert len(wakes) == 1

    run(body, slots=5, batches=BatchLimits(rows=4))


def test_calls_that_are_finished_together_wake_the_event_loop_once() -> None:
    async def body(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        wakes: list[Any] = []
        wake = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *a, **k: (wakes.append(a), wake(*a, **k))[1]  # type: ignore[method-assign]
        delivery = Postprocessor(tokenizer())
        requests = [Request(make_adapter("sha256:a"), ["w1"], {}, 0.0, 0.0) for _ in range(5)]
        calls = [delivery.expect([request]) for request in requests]
        for request in requests:
            delivery.finish(request, Expired("late"))
        delivery.stop()
        delivery.start()
        await asyncio.gather(*(call.future for call in calls))
        assert all(isinstance(c.results[r], Expired) for c, r in zip(calls, requests, strict=True))
        assert len(wakes) == 1
        delivery.join()

    run(body)


def test_a_reference_that_fails_fails_alone_and_in_its_place() -> None:
    async def body(bench: Bench) -> None:
        names = ["good", "nobody", "short", "tokens", "bad", "gone", "also"]
        good, also, bad, gone = bench.add("good", "also", "bad", "gone")
        bench.engine.cache.drop(gone.digest)
        del bench.catalog.adapters[gone.digest]
        bench.catalog.add("short", replace(make_adapter("sha256:short"), preprocessing=Preprocessing(8)))
        bench.catalog.add("tokens", make_adapter("sha256:tokens", task="token-classification"))
        bench.runner.not_finite.add(bad.digest)
        outcomes = await many(bench, names, text(9))
        wanted = [Unknown, TooLong, InvalidParameter, RunnerFault, KeyError]
        assert predictions(outcomes)[1:-1] == wanted
        assert predictions(outcomes)[0] == [expected(good, text(9), **ALL)]
        assert predictions(outcomes)[-1] == [expected(also, text(9), **ALL)]

    run(body, slots=9)


def test_rows_reach_the_queue_together_once_the_last_cold_adapter_is_loaded() -> None:
    async def body(bench: Bench) -> None:
        bench.add("cold", "colder", warm=False)
        bench.add("warm")
        bench.catalog.gate.clear()
        task = asyncio.create_task(many(bench, ["warm", "cold", "colder", "cold"], "w1"))
        for _ in range(2):
            assert await asyncio.to_thread(bench.catalog.loading.acquire, timeout=HANG)
        assert bench.catalog.loads == {"sha256:cold": 1, "sha256:colder": 1}
        assert bench.runner.batches == []
        bench.catalog.gate.set()
        await task
        assert [len(batch) for batch in bench.runner.batches] == [4]

    run(body)


def test_a_call_over_capacity_is_refused_whole() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b", "c")
        held = await bench.hold()
        fits = asyncio.create_task(many(bench, ["a", "b"], "w1", "w2"))
        await bench.queued()
        with pytest.raises(Overloaded):
            await many(bench, ["b", "c"], "w1")
        bench.runner.gate.set()
        assert [len(p) for p in predictions(await fits)] == [2, 2]
        await held

    run(body, capacity=Capacity(items=5))


@pytest.mark.parametrize(
    ("names", "values", "error", "param"),
    [
        (["a", "b", "c"], ["w1"] * 3, TooLarge, "models"),
        (["a"], ["w1"] * 9, TooLarge, "inputs"),
        ([], ["w1"], InvalidInput, "models"),
        (["a"], [], InvalidInput, "inputs"),
    ],
)
def test_a_call_of_the_wrong_size_is_refused_whole_before_it_is_tokenised(
    names: list[str], values: list[str], error: type[Exception], param: str
) -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b", "c")
        with pytest.raises(error) as raised:
            await many(bench, names, *values)
        assert raised.value.param == param  # type: ignore[attr-defined]
        assert bench.runner.rows == []

    run(body, limits=EngineLimits(max_inputs=8))


def test_a_call_that_is_cancelled_is_not_computed_under_any_reference() -> None:
    async def body(bench: Bench) -> None:
        bench.add(*NAMES)
        held = await bench.hold()
        task = asyncio.create_task(many(bench, NAMES, "w1"))
        await bench.queued()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        bench.runner.gate.set()
        await held
        await bench.ask("n0", "w2")
        assert len(bench.runner.rows) == 2
        assert bench.engine.postprocessor.calls == {}
        await asyncio.gather(*(bench.engine.forget(f"sha256:{name}") for name in NAMES))

    run(body, slots=22)


def test_what_is_answered_by_the_deadline_is_given_and_the_rest_has_expired() -> None:
    clock = Clock()

    async def body(bench: Bench) -> None:
        first, _ = bench.add("first", "last")
        bench.runner.fault = lambda digests: bench.runner.gate.clear()
        task = asyncio.create_task(many(bench, ["first", "last"], "w1"))
        # One slot for both: the first batch closes the gate behind itself, the second waits at it.
        await bench.runner.busy()
        await bench.runner.busy()
        await bench.queued()
        clock.now += 6
        await bench.queued()
        assert predictions(await task) == [[expected(first, "w1", **ALL)], Expired]

    run(body, slots=3, clock=clock, limits=EngineLimits(timeout_s=5.0))


def test_a_call_is_refused_once_the_engine_stops() -> None:
    async def body(bench: Bench) -> None:
        bench.add("a", "b")
        await asyncio.to_thread(bench.engine.stop)
        with pytest.raises(Draining):
            await many(bench, ["a", "b"], "w1")

    run(body)


# Inputs of several rows.


def test_an_input_of_several_rows_is_answered_by_its_own_rows_and_all_their_tokens_count() -> None:
    async def body(bench: Bench) -> None:
        adapter = add_nli(bench)
        answer = await bench.engine.predict("nli", VALUES, NLI)
        wanted = [labelled(adapter, value) for value in VALUES]
        assert answer.predictions == [prediction for prediction, _ in wanted]
        assert answer.prompt_tokens == sum(tokens for _, tokens in wanted)
        assert bench.runner.computed(adapter.digest) == 9

    run(body, batches=BatchLimits(rows=2))


def test_inputs_that_become_too_many_rows_are_refused_before_they_are_queued() -> None:
    async def body(bench: Bench) -> None:
        adapter = add_nli(bench)
        add_nli(bench, "other")
        answer = await bench.engine.predict("nli", VALUES[:2], NLI)
        assert len(answer.predictions) == 2
        for names, values in ((["nli"], VALUES), (["nli", "other"], VALUES[:2])):
            with pytest.raises(TooLarge) as raised:
                await bench.engine.predict_many(names, values, NLI)
            assert raised.value.param == "inputs"
        assert bench.runner.computed(adapter.digest) == 6
        assert bench.observer.reasons == ["request_too_large"] * 2

    run(body, limits=EngineLimits(max_inputs=8))


def test_one_row_that_is_not_finite_fails_its_request_by_the_input_that_it_is_of() -> None:
    async def body(bench: Bench) -> None:
        adapter = add_nli(bench)
        whole = bench.runner.run
        calls = iter(range(99))

        def spoiled(batch: Any) -> list[Any]:
            return [o * float("nan") if next(calls) == 4 else o for o in whole(batch)]

        bench.runner.run = spoiled  # type: ignore[method-assign]
        with pytest.raises(RunnerFault, match=r"inputs\[1\] is not finite"):
            await bench.engine.predict("nli", VALUES, NLI)
        assert adapter.digest in bench.engine.slots.resident()

    run(body, batches=BatchLimits(rows=1))


def test_a_golden_input_is_one_row_whatever_the_task_makes_of_its_inputs() -> None:
    async def body(bench: Bench) -> None:
        for task in (name for name, task in TASKS.items() if isinstance(task, TextTask)):
            adapter = make_adapter(f"sha256:{task}", task=task)
            values = ["w1 w2", ("w1", "w2 w3"), Question("w1", text(9)), LONG]
            outputs = await bench.engine.replay(adapter, values)
            encode = tokenizer().encode
            wanted = [encode(v, adapter.preprocessing, truncate=True).ids for v in values]
            for output, ids in zip(outputs, wanted, strict=True):
                assert (output == raw_output(adapter.digest, ids)).all()

    run(body, limits=EngineLimits(max_inputs=2))
