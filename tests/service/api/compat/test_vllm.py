"""vLLM's routes /classify, /pooling and /score, in the forms of its documented requests, against PEFT."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from rootstock.adapters.foundation.location import FoundationFiles
from tests.peft_adapters import TEXTS, PeftAdapter, peft_outputs

pytestmark = pytest.mark.usefixtures("published")
LONG = "word " * 100


def post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def predictions(client: httpx.Client, model: str, inputs: Any, **parameters: Any) -> list[Any]:
    body = {"model": model, "inputs": inputs, "parameters": parameters}
    listed: list[Any] = post(client, "/v1/predict", **body)["predictions"]
    return listed


@pytest.fixture(scope="module")
def logits(foundation: FoundationFiles, peft_saved: dict[str, PeftAdapter]) -> np.ndarray:
    return np.stack(peft_outputs(foundation.folder, peft_saved["first"], TEXTS))


@pytest.mark.parametrize("activation", [True, False])
@pytest.mark.calls("HTTP", "POST /classify")
def test_classes_have_peft_s_probabilities_in_the_order_of_the_labels(
    client: httpx.Client, logits: np.ndarray, activation: bool
) -> None:
    answer = post(client, "/classify", model="mood", input=TEXTS, use_activation=activation)
    expected = torch.from_numpy(logits).softmax(-1).numpy() if activation else logits
    assert np.allclose([one["probs"] for one in answer["data"]], expected, atol=1e-4)
    labels = ["slow", "fine", "lost"]
    assert [one["label"] for one in answer["data"]] == [labels[i] for i in logits.argmax(-1)]
    assert [(one["index"], one["num_classes"]) for one in answer["data"]] == [(i, 3) for i in range(len(TEXTS))]
    assert (answer["object"], answer["model"]) == ("list", "mood")
    native = post(client, "/v1/predict", model="mood", inputs=TEXTS)["usage"]["prompt_tokens"]
    assert answer["usage"] == {"prompt_tokens": native, "total_tokens": native, "completion_tokens": 0}


def test_one_text_is_a_list_of_one_and_a_reference_keeps_its_version(client: httpx.Client) -> None:
    one = post(client, "/classify", model="mood@1", input=TEXTS[0])["data"]
    assert one == post(client, "/classify", model="mood@1", input=TEXTS[:1])["data"]
    assert one != post(client, "/classify", model="mood", input=TEXTS[0])["data"]


@pytest.mark.parametrize("fields", [{}, {"task": "embed"}, {"dimensions": 8}])
@pytest.mark.parametrize("model", ["foundation", "embedder"])
@pytest.mark.calls("HTTP", "POST /pooling")
def test_a_pooled_embedding_is_that_of_the_native_route(
    client: httpx.Client, model: str, fields: dict[str, Any]
) -> None:
    pooled = post(client, "/pooling", model=model, input=TEXTS, **fields)
    shorter = {k: v for k, v in fields.items() if k != "task"}
    native = post(client, "/v1/embeddings", model=model, input=TEXTS, **shorter)
    assert [one["data"] for one in pooled["data"]] == [one["embedding"] for one in native["data"]]
    assert {one["object"] for one in pooled["data"]} == {"pooling"}
    coded = post(client, "/pooling", model=model, input=TEXTS, encoding_format="base64", **fields)["data"]
    vector = np.frombuffer(base64.b64decode(coded[0]["data"]), "<f4")
    assert np.allclose(vector, pooled["data"][0]["data"])


@pytest.mark.parametrize("fields", [{}, {"task": "classify"}])
def test_a_classifier_pools_to_its_probabilities(client: httpx.Client, fields: dict[str, Any]) -> None:
    pooled = post(client, "/pooling", model="mood", input=TEXTS, **fields)["data"]
    classes = post(client, "/classify", model="mood", input=TEXTS)["data"]
    assert [one["data"] for one in pooled] == [one["probs"] for one in classes]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
@pytest.mark.parametrize("left", [TEXTS[0], TEXTS[:1], TEXTS[::-1]])
@pytest.mark.calls("HTTP", "POST /score")
@pytest.mark.calls("HTTP", "POST /v1/score")
def test_a_cross_encoder_scores_pairs_as_the_native_route_does(
    client: httpx.Client, path: str, names: tuple[str, str], left: Any
) -> None:
    answer = post(client, path, model="ranking", **dict(zip(names, (left, TEXTS), strict=True)))
    lefts = left if len(left) == len(TEXTS) else [TEXTS[0]] * len(TEXTS)
    pairs = [{"text": a, "text_pair": b} for a, b in zip(lefts, TEXTS, strict=True)]
    native = predictions(client, "ranking", pairs)
    assert answer["data"] == [
        {"index": i, "object": "score", "score": one["score"]} for i, one in enumerate(native)
    ]


def test_without_activation_a_score_is_the_logit(client: httpx.Client) -> None:
    answer = post(client, "/score", model="ranking", text_1="a", text_2="b", use_activation=False)
    native = predictions(client, "ranking", {"text": "a", "text_pair": "b"}, function_to_apply="none")
    assert answer["data"][0]["score"] == native[0]["score"]


@pytest.mark.parametrize("model", ["foundation", "embedder"])
def test_an_embedder_scores_by_the_cosine(client: httpx.Client, model: str) -> None:
    answer = post(client, "/score", model=model, text_1=TEXTS[0], text_2=TEXTS[1:])
    vectors = np.array(predictions(client, model, TEXTS))
    expected = cosine_similarity(vectors[:1], vectors[1:])[0]
    assert [one["score"] for one in answer["data"]] == pytest.approx(expected.tolist(), abs=1e-5)
    both = post(client, "/score", model=model, text_1=TEXTS[::-1], text_2=TEXTS)["data"]
    paired = np.diag(cosine_similarity(vectors[::-1], vectors))
    assert [one["score"] for one in both] == pytest.approx(paired.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/classify", {"model": "mood", "input": LONG}, "input[0]"),
        ("/pooling", {"model": "embedder", "input": LONG}, "input[0]"),
        ("/score", {"model": "ranking", "text_1": "a", "text_2": LONG}, "text_2[0]"),
    ],
)
def test_a_long_text_is_refused_by_its_field_unless_it_is_to_be_cut(
    client: httpx.Client, path: str, body: dict[str, Any], param: str
) -> None:
    answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, "input_too_long")
    assert error["param"] in (param, param.partition("[")[0]), error
    assert client.post(path, json={**body, "truncate_prompt_tokens": -1}).status_code == 200


CLASSIFY = {"model": "mood", "input": "x"}
SCORE = {"model": "ranking", "text_1": "a", "text_2": ["b", "c"]}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/classify", {**CLASSIFY, "model": "nobody"}, 404, "unknown_adapter"),
        ("/classify", {**CLASSIFY, "model": "mood@9"}, 404, "unknown_version"),
        ("/classify", {**CLASSIFY, "model": "Ä"}, 422, "invalid_reference"),
        ("/classify", {**CLASSIFY, "model": "foundation"}, 422, "wrong_task"),
        ("/classify", {**CLASSIFY, "model": "tagger"}, 422, "wrong_task"),
        ("/classify", {**CLASSIFY, "input": []}, 422, "invalid_request"),
        ("/classify", {**CLASSIFY, "input": [1, 2]}, 422, "invalid_request"),
        ("/classify", {**CLASSIFY, "input": ["x"] * 257}, 413, "request_too_large"),
        ("/classify", {**CLASSIFY, "use_activation": "yes"}, 422, "invalid_request"),
        ("/classify", {**CLASSIFY, "priority": 3}, 422, "invalid_request"),
        ("/classify", {**CLASSIFY, "timeout": 99}, 422, "invalid_parameter"),
        ("/classify", {**CLASSIFY, "truncate_prompt_tokens": -2}, 422, "invalid_parameter"),
        ("/classify", {**CLASSIFY, "messages": []}, 422, "invalid_request"),
        ("/pooling", {**CLASSIFY, "model": "nobody"}, 404, "unknown_adapter"),
        ("/pooling", {**CLASSIFY, "model": "tagger"}, 422, "wrong_task"),
        ("/pooling", {**CLASSIFY, "model": "ranking"}, 422, "wrong_task"),
        ("/pooling", {**CLASSIFY, "task": "embed"}, 422, "wrong_task"),
        ("/pooling", {**CLASSIFY, "task": "token_embed"}, 422, "invalid_request"),
        ("/pooling", {**CLASSIFY, "model": "embedder", "dimensions": 10**6}, 422, "invalid_parameter"),
        ("/pooling", {**CLASSIFY, "encoding_format": "bytes"}, 422, "invalid_request"),
        ("/pooling", {"model": "mood", "data": {}}, 422, "invalid_request"),
        ("/score", {**SCORE, "model": "nobody"}, 404, "unknown_adapter"),
        ("/score", {**SCORE, "model": "mood"}, 422, "wrong_task"),
        ("/score", {**SCORE, "model": "tagger"}, 422, "wrong_task"),
        ("/score", {**SCORE, "text_1": ["a", "b", "c"]}, 422, "invalid_input"),
        ("/score", {**SCORE, "text_1": []}, 422, "invalid_request"),
        ("/score", {**SCORE, "text_2": {"content": []}}, 422, "invalid_request"),
        ("/score", {**SCORE, "text_2": ["b"] * 257}, 413, "request_too_large"),
        ("/score", {**SCORE, "queries": "a"}, 422, "invalid_request"),
        ("/score", {"model": "ranking", "text_1": "a"}, 422, "invalid_request"),
        ("/score", {"model": "embedder", "text_1": "a", "text_2": ["b"] * 256}, 413, "request_too_large"),
        ("/v1/score", [], 422, "invalid_request"),
    ],
)
def test_what_cannot_be_computed_is_refused_with_problem_and_remedy(
    client: httpx.Client, path: str, body: Any, status: int, code: str
) -> None:
    answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert error["message"]
