"""Labels and scores are those of transformers' ZeroShotClassificationPipeline."""

from __future__ import annotations

from typing import Any

import pytest

from rootstock.adapters.spec import Preprocessing
from rootstock.service.engine.core.errors import InvalidInput, InvalidParameter, TooLarge, TooLong
from rootstock.service.engine.encode.modalities.text import Tokenizer
from rootstock.service.engine.encode.tasks import TASKS
from rootstock.service.engine.encode.tasks.task import check_call
from tests.service.engine.tiny import oracle, same, theirs

TASK = TASKS["zero-shot-classification"]
pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["Ada Lovelace met Charles Babbage in London, in 1833!", "unbelievable zzz", "a", " "]
NLI = [
    ("contradiction", "neutral", "entailment"),
    ("ENTAILMENT", "neutral", "contradiction"),
    ("neutral", "Entailed", "no"),
    ("not_entailment", "entailment"),
]
LABELS: list[dict[str, Any]] = [
    {"candidate_labels": ["London", "paris cafe", "born"]},
    {"candidate_labels": " London, Paris ,, New York,"},
    {"candidate_labels": ["born"]},
    {"candidate_labels": ["a", "b", "a"], "hypothesis_template": "the {} was"},
    {"candidate_labels": "in, the", "hypothesis_template": "{{{}}}"},
    {"candidate_labels": ["", "the"], "hypothesis_template": "{}"},
]


@pytest.mark.parametrize("labels", NLI)
@pytest.mark.parametrize("multi", [{}, {"multi_label": False}, {"multi_label": True}], ids=str)
def test_labels_are_scored_as_the_pipeline_does(
    ours: Tokenizer, labels: tuple[str, ...], multi: dict[str, Any]
) -> None:
    model = oracle("zero-shot-classification", labels)
    for given in LABELS:
        parameters = {**given, **multi}
        wanted = model.pipeline(TEXTS, **parameters)
        same([model.answer(text, parameters, ours) for text in TEXTS], wanted)


def test_an_empty_text_is_refused_as_the_pipeline_refuses_it(ours: Tokenizer) -> None:
    model, parameters = oracle("zero-shot-classification", NLI[0]), {"candidate_labels": ["a"]}
    with pytest.raises(ValueError, match="at least one sequence"):
        model.pipeline("", **parameters)
    with pytest.raises(InvalidInput, match="inputs\\[0\\] is empty; zero-shot-classification needs a text"):
        model.answer("", parameters, ours)


def test_only_the_text_is_truncated_and_only_if_asked(ours: Tokenizer) -> None:
    long, parameters = "love " * 200, {"candidate_labels": ["London", "the cafe in Paris"]}
    model = oracle("zero-shot-classification", NLI[0])
    with pytest.raises(TooLong):
        model.answer(long, parameters, ours)
    same(model.answer(long, {**parameters, "truncation": True}, ours), model.pipeline(long, **parameters))
    with pytest.raises(TooLong, match="second text"):
        model.answer("a", {"candidate_labels": [long], "truncation": True}, ours)


def test_each_label_is_a_row_and_too_many_are_refused(ours: Tokenizer) -> None:
    parameters = {"candidate_labels": ["a", "b", "c"]}
    rows = TASK.encode("the", Preprocessing(64, prefix="of "), parameters, ours, most=3)
    assert [list(row.ids) for row in rows] == [
        theirs()("of the", f"This example is {label}.")["input_ids"] for label in "abc"
    ]
    with pytest.raises(TooLarge, match="becomes 3 rows"):
        TASK.encode("the", Preprocessing(64), parameters, ours, most=2)


def test_the_answer_s_sequence_is_the_text_without_the_adapter_s_prefix(ours: Tokenizer) -> None:
    model = oracle("zero-shot-classification", NLI[0], prefix="query: ")
    assert model.answer("in Paris", {"candidate_labels": "a"}, ours)["sequence"] == "in Paris"


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({}, "candidate_labels"),
        ({"candidate_labels": []}, "candidate_labels"),
        ({"candidate_labels": " , "}, "candidate_labels"),
        ({"candidate_labels": ["a", 1]}, "candidate_labels"),
        ({"candidate_labels": {"a": 1}}, "candidate_labels"),
        *[
            ({"candidate_labels": "a", "hypothesis_template": template}, "hypothesis_template")
            for template in (
                "no label",
                "{} and {}",
                "{0}",
                "{:>9999999999}",
                "{.__class__}",
                "{!r}",
                "{",
                3,
                None,
            )
        ],
        ({"candidate_labels": "a", "multi_label": 1}, "multi_label"),
    ],
)
def test_labels_and_templates_that_cannot_be_used_are_refused_by_name(
    parameters: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidParameter) as raised:
        check_call(TASK, ["x"], parameters)
    assert raised.value.param == f"parameters.{param}"
