"""Predictions are what transformers' own pipelines give, on a tiny random BERT and a WordPiece vocabulary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootstock.adapters.media import AudioFile, ImageFile
from rootstock.adapters.spec import Calibration
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter
from rootstock.service.engine.encode.modalities.text import Input, Question, Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.task import check_call
from tests.service.engine.tiny import TEXTS, WORDS, oracle, our_tokenizer, same

NER = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "B-X-Y", "I-X-Y")


pytestmark = pytest.mark.usefixtures("one_thread")


# text-classification

PROBLEMS = [
    (None, 3),
    (None, 1),
    ("single_label_classification", 3),
    ("single_label_classification", 2),
    ("multi_label_classification", 4),
    ("multi_label_classification", 1),
    ("regression", 1),
    ("regression", 3),
]
PARAMETERS: list[dict[str, Any]] = [
    {},
    *[{"top_k": k} for k in (None, 1, 2, 99)],
    *[{"function_to_apply": f} for f in ("sigmoid", "softmax", "none")],
    *[{"function_to_apply": f, "top_k": k} for f in ("sigmoid", "softmax", "none") for k in (None, 2)],
]


@pytest.mark.parametrize(("problem_type", "labels"), PROBLEMS)
def test_texts_and_pairs_are_classified_as_the_pipeline_does(
    ours: Tokenizer, problem_type: str | None, labels: int
) -> None:
    model = oracle("text-classification", tuple(f"label {i}" for i in range(labels)), problem_type)
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    asked = [*TEXTS, *[{"text": a, "text_pair": b} for a, b in pairs]]
    for parameters in PARAMETERS:
        wanted = model.pipeline(asked, **parameters)
        actual = [model.answer(value, parameters, ours) for value in [*TEXTS, *pairs]]
        same(actual, wanted)


def test_the_default_function_may_be_named(ours: Tokenizer) -> None:
    model = oracle("text-classification", ("a", "b", "c"), "multi_label_classification")
    task, raw = TASKS["text-classification"], np.array([-100.0, 0.0, 100.0], np.float32)
    for parameters in ({"top_k": None}, {"top_k": None, "function_to_apply": None}):
        predicted = task.predict([raw], [], model.adapter, parameters, ours)
        same(
            predicted, [{"label": "c", "score": 1.0}, {"label": "b", "score": 0.5}, {"label": "a", "score": 0.0}]
        )


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_huge_logits_give_finite_scores(ours: Tokenizer, function: str) -> None:
    model = oracle("text-classification", ("a", "b", "c"))
    raw = np.array([-1e30, 1e30, 88.8], np.float32)
    parameters = {"top_k": None, "function_to_apply": function}
    predicted = TASKS["text-classification"].predict([raw], [], model.adapter, parameters, ours)
    assert predicted[0]["label"] == "b"
    assert all(np.isfinite(p["score"]) for p in predicted)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_huge_logits_give_finite_calibrated_scores(ours: Tokenizer, function: str) -> None:
    model = oracle("text-classification", ("a", "b", "c"))
    adapter = replace(model.adapter, calibration=Calibration(0.01))
    raw = np.array([-1e38, 1e38, 88.8], np.float32)
    parameters = {"top_k": None, "function_to_apply": function, "calibrated": True}
    predicted = TASKS["text-classification"].predict([raw], [], adapter, parameters, ours)
    assert predicted[0]["label"] == "b"
    assert all(np.isfinite(p["score"]) for p in predicted)


# token-classification

STRATEGIES = ["none", "simple", "first", "average", "max"]
IGNORED: list[dict[str, Any]] = [
    {},
    {"ignore_labels": []},
    {"ignore_labels": ["PER", "B-LOC"]},
    {"ignore_labels": ["O", "MISC"]},
]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(4))
def test_tokens_and_spans_are_the_pipeline_s(ours: Tokenizer, strategy: str, seed: int) -> None:
    model = oracle("token-classification", NER, seed=seed)
    for value in TEXTS:
        for ignored in IGNORED:
            parameters = {"aggregation_strategy": strategy, **ignored}
            same(model.answer(value, parameters, ours), model.pipeline(value, **parameters))
    same(model.answer(TEXTS[0], {}, ours), model.pipeline(TEXTS[0]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    st.sampled_from(STRATEGIES),
    st.sampled_from(IGNORED),
    st.integers(0, 3),
)
def test_any_text_s_spans_are_the_pipeline_s(
    value: str, strategy: str, ignored: dict[str, Any], seed: int
) -> None:
    model = oracle("token-classification", NER, seed=seed)
    parameters = {"aggregation_strategy": strategy, **ignored}
    same(model.answer(value, parameters, our_tokenizer()), model.pipeline(value, **parameters))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join), st.integers(0, 3))
def test_offsets_are_the_user_s_own_where_a_prefix_was_put_before_the_text(value: str, seed: int) -> None:
    prefix = "query: the "
    model = oracle("token-classification", NER, prefix=prefix, seed=seed)
    everything = {"ignore_labels": []}
    wanted = [
        {**e, "start": e["start"] - len(prefix), "end": e["end"] - len(prefix)}
        for e in model.pipeline(prefix + value, **everything)
        if e["start"] >= len(prefix)
    ]
    same(model.answer(value, everything, our_tokenizer()), wanted)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_span_begins_in_the_prefix(ours: Tokenizer, strategy: str) -> None:
    for seed in range(4):
        model = oracle("token-classification", NER, prefix="ada l", seed=seed)
        spans = model.answer("ovelace in London", {"aggregation_strategy": strategy, "ignore_labels": []}, ours)
        assert spans[0]["start"] == 0
        assert spans[-1]["end"] == len("ovelace in London")


# feature-extraction


def test_a_vector_is_given_as_it_is(ours: Tokenizer) -> None:
    raw = np.array([0.1, -2.0], np.float32)
    vector = TASKS["feature-extraction"].predict([raw], [], None, {}, ours)  # type: ignore[arg-type]
    assert vector == raw.tolist()


# parameters and inputs

LABELS = {"candidate_labels": ["a"]}
NEEDED: dict[str, dict[str, Any]] = {"zero-shot-classification": LABELS}
INPUTS: dict[str, list[Input]] = {
    "text-classification": ["x", ("x", "y")],
    "token-classification": ["x"],
    "feature-extraction": ["x"],
    "question-answering": [Question("x", "y")],
    "text-ranking": [("x", "y")],
    "zero-shot-classification": ["x"],
    "fill-mask": ["x"],
}
BAD = [
    *[("text-classification", "top_k", value) for value in (0, -1, True, 1.0, "1")],
    *[("text-classification", "function_to_apply", value) for value in ("relu", 1, ["softmax"])],
    ("text-classification", "aggregation_strategy", "simple"),
    ("text-classification", "ignore_labels", []),
    *[("text-classification", "truncation", value) for value in (1, "longest_first", None)],
    *[("text-classification", "truncate", value) for value in (1, "end", "LEFT", None, [], {})],
    *[("text-classification", "truncate_prompt_tokens", value) for value in (0, 2, -2, 8.0, "8", True, None)],
    ("question-answering", "truncate_prompt_tokens", 8),
    ("token-classification", "top_k", 1),
    ("token-classification", "function_to_apply", "none"),
    *[("token-classification", "aggregation_strategy", value) for value in ("last", {})],
    *[("token-classification", "ignore_labels", value) for value in ("O", ["O", 1], {"O": 1})],
    ("feature-extraction", "top_k", None),
    ("feature-extraction", "normalize", True),
    ("feature-extraction", "", True),
    *[("question-answering", "top_k", value) for value in (0, 1.5, True, 10**9)],
    *[("question-answering", name, 0) for name in ("max_answer_len", "max_seq_len", "max_question_len")],
    ("question-answering", "doc_stride", -1),
    *[("question-answering", name, None) for name in ("handle_impossible_answer", "align_to_words")],
    ("question-answering", "topk", 1),
    *[("text-ranking", "function_to_apply", value) for value in ("softmax", 1)],
    ("text-ranking", "top_k", 1),
]


@pytest.mark.parametrize(("task", "name", "value"), BAD)
def test_a_parameter_that_the_task_does_not_take_is_refused_by_name(task: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as raised:
        check_call(TASKS[task], INPUTS[task], {name: value})
    assert raised.value.param == f"parameters.{name}"
    assert name in str(raised.value)


@pytest.mark.parametrize("task", sorted(INPUTS))
def test_truncation_is_every_task_on_texts_and_others_are_listed(task: str) -> None:
    wishes: list[dict[str, Any]] = [
        {name: value} for name in ("truncation", "truncate") for value in (True, False)
    ]
    wishes += [{"truncate": value} for value in ("NONE", "START", "END")]
    for wish in wishes:
        check_call(TASKS[task], INPUTS[task], {**wish, **NEEDED.get(task, {})})
    with pytest.raises(InvalidParameter, match="truncation and truncate set the same thing"):
        check_call(TASKS[task], INPUTS[task], {"truncate": False, "truncation": True, **NEEDED.get(task, {})})
    with pytest.raises(InvalidParameter, match="truncation"):
        check_call(TASKS[task], INPUTS[task], {"nonsense": 1})


@pytest.mark.parametrize("task", sorted(INPUTS))
def test_a_form_of_input_that_the_task_does_not_take_is_refused_by_its_place(task: str) -> None:
    every: list[Any] = ["x", ("x", "y"), Question("x", "y"), ImageFile(b""), AudioFile(b"")]
    refused = [value for value in every if type(value) not in {type(v) for v in INPUTS[task]}]
    for value in refused:
        with pytest.raises(InvalidInput, match=r"inputs\[\d\] is an? ") as raised:
            check_call(TASKS[task], [*INPUTS[task], value], NEEDED.get(task, {}))
        assert raised.value.param == f"inputs[{len(INPUTS[task])}]"
