"""Tasks whose inputs become several rows, over HTTP, against transformers' pipelines with PEFT's model."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import transformers

from rootstock.adapters.foundation.location import FoundationFiles
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter, merged, save_adapter, tokenizer_of
from tests.service.engine.question_pipeline import QuestionAnsweringPipeline

QUESTION = "Who met Charles Babbage?"
CONTEXT = "Ada Lovelace met Charles Babbage in London in June 1833, at a party in Dorset Street. "
TEXTS = ["It was due on Monday.", "ok", "The parcel is at the depot in Dorset Street."]
NLI = ["contradiction", "neutral", "entailment"]


@pytest.fixture(scope="module")
def questions(foundation: FoundationFiles, tmp_path_factory: pytest.TempPathFactory) -> PeftAdapter:
    folder = tmp_path_factory.mktemp("questions")
    return save_adapter(foundation.folder, folder, "QUESTION_ANS", 7, labels=2, r=4)


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter], questions: PeftAdapter) -> None:
    fields = {"task": "zero-shot-classification", "labels": json.dumps(NLI)}
    assert upload(client, "nli", peft_saved["first"].zip(), **fields).status_code == 201
    assert upload(client, "scalar", peft_saved["scalar"].zip()).status_code == 201
    answer = upload(client, "questions", questions.zip())
    assert (answer.status_code, answer.json()["task"]) == (201, "question-answering")


def predict(client: httpx.Client, model: str, inputs: Any, **parameters: Any) -> Any:
    answer = client.post("/v1/predict", json={"model": model, "inputs": inputs, "parameters": parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: httpx.Client, path: str, body: Any, status: int, code: str, param: str | None) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)


# question-answering


def test_questions_are_answered_as_the_pipeline_does_in_short_and_in_long_contexts(
    client: httpx.Client, foundation: FoundationFiles, questions: PeftAdapter
) -> None:
    model, tokenizer = merged(foundation.folder, questions), tokenizer_of(foundation.folder)
    pipeline = QuestionAnsweringPipeline(model, tokenizer, "cpu")
    contexts = [CONTEXT, "".join(CONTEXT.replace("1833", str(year)) for year in range(1833, 1843))]
    inputs = [{"question": QUESTION, "context": context} for context in contexts]
    parameters = {"top_k": 3, "handle_impossible_answer": True, "max_seq_len": 96}
    answer = predict(client, "questions", inputs, **parameters)
    for ours, context in zip(answer["predictions"], contexts, strict=True):
        theirs = pipeline(QUESTION, context, **parameters)
        assert ours == [{**one, "score": pytest.approx(one["score"], abs=1e-5, rel=1e-3)} for one in theirs]
    whole = len(tokenizer(QUESTION, CONTEXT)["input_ids"])
    windows = tokenizer(
        QUESTION, contexts[1], truncation="only_second", max_length=96, stride=48, return_overflowing_tokens=True
    )
    assert answer["usage"]["prompt_tokens"] == whole + sum(map(len, windows["input_ids"]))


def test_inputs_that_are_no_question_with_a_context_are_refused_by_their_place(client: httpx.Client) -> None:
    for inputs, param in (
        ("x", "inputs[0]"),
        ({"text": "x", "text_pair": "y"}, "inputs[0]"),
        ([{"question": "x", "context": "y"}, {"question": "x", "context": ""}], "inputs[1].context"),
    ):
        refused(client, "/v1/predict", {"model": "questions", "inputs": inputs}, 422, "invalid_input", param)


def test_a_context_of_more_windows_than_a_request_may_have_is_413(client: httpx.Client) -> None:
    body = {
        "model": "questions",
        "inputs": {"question": "a", "context": "a " * 2000},
        "parameters": {"max_seq_len": 16, "doc_stride": 8},
    }
    refused(client, "/v1/predict", body, 413, "request_too_large", "inputs")


# zero-shot-classification


@pytest.mark.parametrize("multi", [False, True])
def test_labels_given_with_the_request_are_scored_as_the_pipeline_does(
    client: httpx.Client, foundation: FoundationFiles, peft_saved: dict[str, PeftAdapter], multi: bool
) -> None:
    model = merged(foundation.folder, peft_saved["first"])
    model.config.label2id = {label: i for i, label in enumerate(NLI)}
    tokenizer = tokenizer_of(foundation.folder)
    pipeline = transformers.pipeline("zero-shot-classification", model=model, tokenizer=tokenizer, device="cpu")
    parameters = {"candidate_labels": "travel, delivery, history", "multi_label": multi}
    ours = predict(client, "nli", TEXTS, **parameters)["predictions"]
    theirs = pipeline(TEXTS, **parameters)
    assert ours == [{**one, "scores": pytest.approx(one["scores"], abs=1e-4)} for one in theirs]


def test_more_labels_than_a_request_may_have_rows_are_413_and_none_is_422(client: httpx.Client) -> None:
    body = {"model": "nli", "inputs": ["x", "y"], "parameters": {"candidate_labels": ["a"] * 129}}
    refused(client, "/v1/predict", body, 413, "request_too_large", "inputs")
    refused(
        client,
        "/v1/predict",
        {"model": "nli", "inputs": "x"},
        422,
        "invalid_parameter",
        "parameters.candidate_labels",
    )


# under many models


def test_models_of_different_tasks_each_answer_or_say_what_they_take(client: httpx.Client) -> None:
    body = {"models": ["questions", "nli", "scalar"], "inputs": [{"text": "a", "text_pair": "b"}]}
    results = client.post("/v1/predict", json=body).json()["results"]
    assert results[0]["error"]["param"] == "inputs[0]"
    assert results[1]["error"]["param"] == "parameters.candidate_labels"
    assert results[2]["task"] == "text-classification"


def test_too_many_inputs_under_many_models_are_413(client: httpx.Client) -> None:
    body = {"models": ["scalar"] * 2, "inputs": ["x"] * 129}
    refused(client, "/v1/predict", body, 413, "request_too_large", "models")
