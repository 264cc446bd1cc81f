"""A call is bounded before it is worked on; long tokenising gives way to others and ends early."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rootstock.adapters.spec import Adapter, AdapterWeights, Preprocessing
from rootstock.service.engine.core.admission import Capacity
from rootstock.service.engine.core.errors import Expired, InvalidParameter, Overloaded, TooLarge
from rootstock.service.engine.core.request import RequestOptions
from rootstock.service.engine.encode.batch import Request, Row
from rootstock.service.engine.encode.modalities.text import Input, Question, TextSample, Tokenizer
from rootstock.service.engine.encode.modalities.text_input import MAX_CHARACTERS
from rootstock.service.engine.encode.preprocess import Preprocessor, check_outputs
from rootstock.service.engine.encode.size import (
    MAX_CALL_CHARACTERS,
    MAX_PARAMETER_CHARACTERS,
    MAX_PARAMETER_VALUES,
)
from rootstock.service.engine.encode.tasks import TASKS
from tests.service.engine.fakes import Bench, Clock, expected, make_adapter, run, tokenizer

LABELS = tuple(f"label {i}" for i in range(60_000))
NLI = ("entailment", "neutral", "contradiction")
SOME = ("a", "b", "c", "d")


class Gated:
    """A tokenizer in the intake's hands: it notes what it reads, and waits before each text."""

    def __init__(self, intake: Preprocessor) -> None:
        self.texts: list[Input] = []
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        intake._reader = self  # type: ignore[assignment]

    def checked(self, check: Callable[[], None]) -> Gated:
        return self

    def encode(self, value: Input, *arguments: Any, **options: Any) -> TextSample:
        self.texts.append(value)
        self.entered.release()
        assert self.go.wait(60)
        return tokenizer().encode("w1", Preprocessing(8), truncate=False)

    async def reading(self) -> None:
        """Wait until one more text is begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=60)


def add(bench: Bench, name: str, task: str, labels: tuple[str, ...], **fields: Any) -> Adapter:
    adapter = replace(make_adapter(f"sha256:{name}", task), labels=labels, **fields)
    bench.engine.cache.put(adapter)
    return bench.catalog.add(name, adapter)


def ask(bench: Bench, name: str, *values: Input, **parameters: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(bench.engine.predict(name, list(values), parameters))


# Bounds.

LONG = "x" * (MAX_CHARACTERS + 1)
HALF = "x" * (MAX_CHARACTERS // 2 + 1)
PROJECTION = AdapterWeights({}, {"head.weight": np.zeros((43_000, 8), np.float32)})
TOO_LARGE: dict[str, tuple[str, tuple[Input, ...], dict[str, Any], str]] = {
    "a text": ("text-classification", ("w1", LONG), {}, r"inputs\[1\]"),
    "a text that may be cut": ("text-classification", (LONG,), {"truncation": True}, r"inputs\[0\]"),
    "a pair, both texts together": ("text-classification", ((HALF, HALF),), {}, r"inputs\[0\]"),
    "a context": ("question-answering", (Question("w1", LONG),), {}, r"inputs\[0\]"),
    "all texts": ("text-classification", ("x" * 2**16,) * 129, {}, "inputs"),
    "a query that is read again for each document": ("text-ranking", (("x" * 2**16, "w1"),) * 129, {}, "inputs"),
    "a text that is read again for each label": (
        "zero-shot-classification",
        ("x" * 2**18,),
        {"candidate_labels": [f"w{i}" for i in range(33)]},
        "inputs",
    ),
    "rows of labels": (
        "zero-shot-classification",
        ("w1",) * 20,
        {"candidate_labels": [f"w{i}" for i in range(20)]},
        "inputs",
    ),
    "every label of many": ("text-classification", ("w1",) * 256, {"top_k": None}, "inputs"),
    "as many labels as there are": ("text-classification", ("w1",) * 256, {"top_k": 10**9}, "inputs"),
    "vectors": ("feature-extraction", ("w1",) * 256, {}, "inputs"),
    "a parameter's text": (
        "text-classification",
        ("w1",),
        {"function_to_apply": "x" * (MAX_PARAMETER_CHARACTERS + 1)},
        "parameters.function_to_apply",
    ),
    "a parameter's name": ("text-classification", ("w1",), {"x" * 2**20: 1}, "parameters.x*"),
    "a parameter's values": (
        "token-classification",
        ("w1",),
        {"ignore_labels": ["x"] * (MAX_PARAMETER_VALUES + 1)},
        "parameters.ignore_labels",
    ),
    "a parameter's values within values": (
        "token-classification",
        ("w1",),
        {"ignore_labels": [[1] * 1000] * 5},
        "parameters.ignore_labels",
    ),
    "parameters": (
        "text-classification",
        ("w1",),
        {str(i): i for i in range(MAX_PARAMETER_VALUES)},
        r"parameters.\d+",
    ),
    "candidate labels in one string": (
        "zero-shot-classification",
        ("w1",),
        {"candidate_labels": "a," * 2**17},
        "parameters.candidate_labels",
    ),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_is_too_large_is_refused_before_it_is_tokenised(case: str) -> None:
    task, inputs, parameters, param = TOO_LARGE[case]

    async def body(bench: Bench) -> None:
        labels = {"text-classification": LABELS, "zero-shot-classification": NLI, "token-classification": ("O",)}
        add(bench, "a", task, labels.get(task, ()), weights=PROJECTION)
        tokenising = Gated(bench.engine.preprocessor)
        tokenising.go.set()
        with pytest.raises(TooLarge, match=r"limit is|at most") as refused:
            await ask(bench, "a", *inputs, **parameters)
        assert re.fullmatch(param, refused.value.param or "")
        assert tokenising.texts == []
        assert bench.runner.batches == []
        assert bench.engine.admission.waiting() == (0, 0)
        assert bench.observer.reasons == ["request_too_large"]

    run(body)


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"candidate_labels": ["w1", "x" * 1025]}, "candidate_labels"),
        ({"candidate_labels": "w1", "hypothesis_template": "x" * 1023 + "{}"}, "hypothesis_template"),
    ],
)
def test_a_hypothesis_of_many_characters_is_refused_by_the_parameter_that_makes_it_long(
    parameters: dict[str, Any], param: str
) -> None:
    with pytest.raises(
        InvalidParameter, match="has 1025 characters and the limit is 1024; shorten it"
    ) as refused:
        TASKS["zero-shot-classification"].check(parameters)
    assert refused.value.param == f"parameters.{param}"


def test_the_models_of_a_fan_out_share_one_bound_on_the_answer_and_on_what_is_read() -> None:
    async def body(bench: Bench) -> None:
        names = [f"n{i}" for i in range(8)]
        for name in names:
            add(bench, name, "text-classification", LABELS)
        with pytest.raises(TooLarge, match="the answer would take about 33 MiB and the limit is 32"):
            await bench.engine.predict_many([*names, names[0]], ["w1"], {"top_k": None})
        with pytest.raises(TooLarge, match=f"limit is {MAX_CALL_CHARACTERS}"):
            await bench.engine.predict_many(names, ["x" * 2**16] * 17, {})
        assert bench.runner.batches == []

    run(body)


def test_what_is_as_large_as_may_be_is_answered() -> None:
    async def body(bench: Bench) -> None:
        adapter = add(bench, "a", "text-classification", SOME)
        text = "w1" + " " * (MAX_CHARACTERS - 2)
        answer = await ask(bench, "a", *[text] * 8, top_k=None)
        assert answer.predictions == [expected(adapter, "w1", top_k=None)] * 8

    run(body)


def test_outputs_of_many_labels_for_many_tokens_are_refused_before_they_are_computed() -> None:
    async def body(bench: Bench) -> None:
        add(bench, "a", "token-classification", LABELS[:4096])
        with pytest.raises(TooLarge, match=f"outputs for these inputs are {8194 * 4096} numbers"):
            await ask(bench, "a", *["w1 " * 510] * 16, "")
        assert bench.runner.batches == []

    run(body)


def test_sequences_with_their_masks_filled_are_bounded_before_they_are_computed() -> None:
    words = tokenizer().encode("w1 " * 510, Preprocessing(512), truncate=False)

    def rows(masks: int, **parameters: Any) -> list[Row]:
        request = Request(make_adapter("a", "fill-mask"), [], parameters, 0.0, 0.0)
        return [Row(request, i, replace(words, masks=tuple(range(1, masks + 1)))) for i in range(256 // masks)]

    check_outputs(rows(1))
    for masks in (1, 64):
        with pytest.raises(TooLarge, match="the answer would take about 100 MiB"):
            check_outputs(rows(masks, top_k=100))


@pytest.mark.parametrize(("longest", "limit"), [(4, 2**18), (30, 2**24)])
def test_an_answer_s_text_is_bounded_where_its_tokens_may_be_of_any_length(longest: int, limit: int) -> None:
    task = TASKS["question-answering"]
    context = " ".join(f"{i}" + "x" * 2**13 for i in range(30))
    (row,) = task.encode(Question("w1", context), Preprocessing(512), {}, tokenizer(), most=9)
    raw = np.zeros((len(row.ids), 2), np.float32)
    with pytest.raises(TooLarge, match=f"answers have more than {limit} characters"):
        task.predict([raw], [row], make_adapter("a"), {"top_k": 100, "max_answer_len": longest}, tokenizer())


# Turns, and what nobody waits for.


def test_a_short_call_does_not_wait_until_a_long_one_is_tokenised() -> None:
    async def body(bench: Bench) -> None:
        add(bench, "long", "text-classification", SOME)
        add(bench, "short", "text-classification", SOME)
        tokenising = Gated(bench.engine.preprocessor)
        texts = [f"{i}" + " " * 2**15 for i in range(100)]
        long = ask(bench, "long", *texts)
        await tokenising.reading()
        short = [ask(bench, "short", f"w{i}") for i in range(5)]
        await asyncio.sleep(0)
        tokenising.go.set()
        await asyncio.gather(long, *short)
        assert tokenising.texts[0] == texts[0]
        assert tokenising.texts[1:6] == [f"w{i}" for i in range(5)]
        assert tokenising.texts[6:] == texts[1:]

    run(body)


def test_the_labels_of_a_text_give_way_to_a_short_call_too() -> None:
    async def body(bench: Bench) -> None:
        add(bench, "long", "zero-shot-classification", NLI)
        add(bench, "short", "text-classification", SOME)
        tokenising = Gated(bench.engine.preprocessor)
        long = ask(bench, "long", " " * 2**15, candidate_labels=[f"w{i}" for i in range(50)])
        await tokenising.reading()
        short = ask(bench, "short", "w1")
        await asyncio.sleep(0)
        tokenising.go.set()
        await asyncio.gather(long, short)
        assert tokenising.texts[1] == "w1"

    run(body)


def test_long_calls_are_tokenised_in_turn() -> None:
    async def body(bench: Bench) -> None:
        for name in "abc":
            add(bench, name, "text-classification", SOME)
        tokenising = Gated(bench.engine.preprocessor)
        plug = ask(bench, "a", "plug")
        await tokenising.reading()
        calls = [ask(bench, name, *[name + " " * 2**15] * 4) for name in "abc"]
        await asyncio.sleep(0)
        tokenising.go.set()
        await asyncio.gather(plug, *calls)
        assert [str(text).strip() for text in tokenising.texts[1:]] == list("abc" * 4)

    run(body)


def test_a_call_that_is_left_while_it_is_tokenised_is_read_no_further() -> None:
    async def body(bench: Bench) -> None:
        add(bench, "a", "text-classification", SOME)
        tokenising = Gated(bench.engine.preprocessor)
        task = ask(bench, "a", *[f"w{i}" for i in range(200)])
        await tokenising.reading()
        task.cancel()
        await asyncio.wait([task])
        tokenising.go.set()
        await ask(bench, "a", "next")
        assert tokenising.texts == ["w0", "next"]
        assert bench.runner.computed("sha256:a") == 1

    run(body)


def test_a_call_whose_deadline_passes_while_it_is_tokenised_is_read_no_further() -> None:
    clock = Clock()

    async def body(bench: Bench) -> None:
        add(bench, "a", "text-classification", SOME)
        tokenising = Gated(bench.engine.preprocessor)
        call = bench.engine.predict("a", [f"w{i}" for i in range(200)], {}, options=RequestOptions(timeout_s=5))
        task = asyncio.create_task(call)
        await tokenising.reading()
        clock.now += 6
        tokenising.go.set()
        with pytest.raises(Expired):
            await task
        await ask(bench, "a", "next")
        assert tokenising.texts == ["w0", "next"]

    run(body, clock=clock)


def test_a_long_text_of_few_tokens_is_read_no_further_once_its_call_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    first, left = threading.Event(), threading.Event()
    bare = Tokenizer._bare

    def waiting(self: Tokenizer, text: str) -> Any:
        if len(text) > 100:
            read.append(len(text))
            first.set()
            assert left.wait(60)
        return bare(self, text)

    monkeypatch.setattr(Tokenizer, "_bare", waiting)

    async def body(bench: Bench) -> None:
        add(bench, "a", "text-classification", SOME)
        task = ask(bench, "a", "x" * MAX_CHARACTERS)
        assert await asyncio.to_thread(first.wait, 60)
        task.cancel()
        await asyncio.wait([task])
        left.set()
        await ask(bench, "a", "w1")
        assert sum(read) < MAX_CHARACTERS / 8

    run(body)


# Admission.


def test_a_text_of_few_tokens_waits_with_the_cost_of_reading_it() -> None:
    async def body(bench: Bench) -> None:
        add(bench, "a", "text-classification", SOME)
        tokenising = Gated(bench.engine.preprocessor)
        task = ask(bench, "a", " " * 2**18)
        await tokenising.reading()
        assert bench.engine.admission.waiting()[1] > 4000
        with pytest.raises(Overloaded, match="tokens"):
            await ask(bench, "a", " " * 2**18)
        tokenising.go.set()
        await task
        assert bench.engine.admission.waiting() == (0, 0)

    run(body, capacity=Capacity(tokens=6000))


def test_a_text_waits_once_for_each_label_that_reads_it() -> None:
    async def body(bench: Bench) -> None:
        add(bench, "a", "zero-shot-classification", NLI)
        tokenising = Gated(bench.engine.preprocessor)
        task = ask(bench, "a", "x" * 2**12, candidate_labels=["w1", "w2", "w3"])
        await tokenising.reading()
        assert bench.engine.admission.waiting() == (3, 3 * (512 + 2048 // 64))
        tokenising.go.set()
        await task

    run(body)
