"""Answers are those of transformers' QuestionAnsweringPipeline, over contexts of one window and of many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, TooLarge
from rootstock.service.engine.encode.modalities.text import Question, Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.question_answering import MAX_TOP_K
from rootstock.service.engine.encode.tasks.task import check_call
from tests.service.engine.tiny import WORDS, oracle, our_tokenizer, same

TASK = TASKS["question-answering"]
pytestmark = pytest.mark.usefixtures("one_thread")

QUESTION = "Who met Babbage in London?"
SHORT = "Ada Lovelace met Charles Babbage in London, in 1833!"
LONG = " ".join([SHORT, "unbelievable naïve cafés of New York's (xxy) was born in Istanbul."] * 9)
PARAMETERS: list[dict[str, Any]] = [
    {},
    {"top_k": 5},
    {"max_answer_len": 2, "top_k": 3},
    {"align_to_words": False, "top_k": 4},
    {"handle_impossible_answer": True},
    {"handle_impossible_answer": True, "top_k": 50},
    {"max_seq_len": 40, "doc_stride": 12, "top_k": 4},
    {"max_seq_len": 40, "doc_stride": 0},
    {"max_seq_len": 64, "doc_stride": 20, "max_question_len": 3, "handle_impossible_answer": True, "top_k": 7},
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_answers_are_the_pipeline_s(ours: Tokenizer, parameters: dict[str, Any], seed: int) -> None:
    model = oracle("question-answering", ("start", "end"), seed=seed)
    for context in (SHORT, LONG, "a", "   Paris   ", "in Paris PARIS paris", "e\u0301ee İstanbul 漢字 loveszzz"):
        wanted = model.pipeline(QUESTION, context, **parameters)
        same(model.answer(Question(QUESTION, context), parameters, ours), wanted)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=60).map(lambda words: " ".join(["Ada", *words])),
    st.sampled_from([p for p in PARAMETERS if "max_question_len" not in p]),
    st.integers(0, 3),
)
def test_any_question_s_answers_are_the_pipeline_s(
    question: str, context: str, parameters: dict[str, Any], seed: int
) -> None:
    model = oracle("question-answering", ("start", "end"), seed=seed)
    wanted = model.pipeline(question, context, **parameters)
    same(model.answer(Question(question, context), parameters, our_tokenizer()), wanted)


def test_a_long_context_becomes_one_row_a_window_and_all_of_it_is_read(ours: Tokenizer) -> None:
    model = oracle("question-answering", ("start", "end"))
    rows = TASK.encode(Question(QUESTION, LONG), model.adapter.preprocessing, {}, ours, most=9)
    assert len(rows) > 1
    assert all(len(row.ids) <= 128 for row in rows)
    last = max(end for row in rows for _, end in row.encoding.offsets)
    assert last == len(LONG)


def test_a_context_of_too_many_windows_is_refused_before_it_is_cut(ours: Tokenizer) -> None:
    preprocessing = Preprocessing(128)
    windows = len(TASK.encode(Question(QUESTION, LONG), preprocessing, {}, ours, most=999))
    assert TASK.encode(Question(QUESTION, LONG), preprocessing, {}, ours, most=windows)
    with pytest.raises(TooLarge, match=f"becomes {windows} rows"):
        TASK.encode(Question(QUESTION, LONG), preprocessing, {}, ours, most=windows - 1)
    with pytest.raises(TooLarge):
        TASK.encode(Question("a", "a " * 10**5), preprocessing, {"doc_stride": 123}, ours, most=256)


@pytest.mark.parametrize(
    ("question", "parameters", "param"),
    [
        (QUESTION, {"max_seq_len": 129}, "max_seq_len"),
        (QUESTION, {"doc_stride": 128}, "doc_stride"),
        (QUESTION, {"max_seq_len": 20, "doc_stride": 12}, "doc_stride"),
        (QUESTION, {"max_seq_len": 4}, "doc_stride"),
        ("a " * 64, {"max_seq_len": 60}, "doc_stride"),
    ],
)
def test_a_window_that_would_bring_nothing_new_is_refused_by_its_parameter(
    ours: Tokenizer, question: str, parameters: dict[str, Any], param: str
) -> None:
    check_call(TASK, [Question(question, LONG)], parameters)
    with pytest.raises(InvalidParameter) as raised:
        TASK.encode(Question(question, LONG), Preprocessing(128), parameters, ours, most=256)
    assert raised.value.param == f"parameters.{param}"


def test_a_question_that_leaves_less_than_the_default_stride_is_still_answered(ours: Tokenizer) -> None:
    rows = TASK.encode(Question("a " * 64, LONG), Preprocessing(128), {}, ours, most=256)
    assert len(rows) > 1


def test_a_context_without_tokens_has_no_answer(ours: Tokenizer) -> None:
    model = oracle("question-answering", ("start", "end"))
    assert model.answer(Question("a", "   "), {}, ours) == []
    empty = model.answer(Question("a", "   "), {"handle_impossible_answer": True}, ours)
    assert (empty["answer"], empty["score"]) == ("", pytest.approx(1))


def test_a_hopeless_context_s_best_span_is_still_within_it(ours: Tokenizer) -> None:
    (row,) = TASK.encode(Question("a", "the cafe"), Preprocessing(128), {}, ours, most=1)
    raw = np.full((len(row.ids), 2), -1e30, np.float32)
    raw[0] = 1e30
    answer = TASK.predict([raw], [row], None, {}, ours)  # type: ignore[arg-type]
    assert answer["answer"] in ("the", "cafe", "the cafe")
    assert answer["score"] == 0


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (Question("", "x"), "inputs[1].question"),
        (Question("x", ""), "inputs[1].context"),
        ("x", "inputs[1]"),
        (("x", "y"), "inputs[1]"),
    ],
)
def test_an_input_that_is_no_question_with_a_context_is_refused_by_its_place(value: Any, where: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_call(TASK, [Question("x", "y"), value], {})
    assert raised.value.param == where


def test_limits_beyond_any_number_are_no_limits(ours: Tokenizer) -> None:
    model = oracle("question-answering", ("start", "end"))
    huge = dict.fromkeys(("max_question_len", "max_answer_len"), 10**30)
    whole = model.pipeline(QUESTION, SHORT, max_question_len=99, max_answer_len=99)
    same(model.answer(Question(QUESTION, SHORT), huge, ours), whole)


def test_the_number_of_answers_is_bounded() -> None:
    check_call(TASK, [Question("x", "y")], {"top_k": MAX_TOP_K})
    with pytest.raises(InvalidParameter, match="at most"):
        check_call(TASK, [Question("x", "y")], {"top_k": MAX_TOP_K + 1})
