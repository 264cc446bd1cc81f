"""POST /v1/predict gives what transformers' pipelines give with PEFT's model."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
import transformers
from peft import PeftModel

from rootstock.adapters.foundation.location import FoundationFiles
from tests.live_server import upload
from tests.peft_adapters import CLASSES, PeftAdapter, tokenizer_of

TEXTS = [
    "Where is my parcel?",
    "Ada Lovelace lived in London, near St James's Square.",
    "ok",
    "It broke. Café naïve!",
]
PAIRS = [{"text": "A man sleeps.", "text_pair": "Somebody rests."}, {"text": "x", "text_pair": "y z"}]


@pytest.fixture(scope="module", autouse=True)
def published(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    for name in ("first", "second", "tokens", "embedder", "scalar"):
        assert upload(client, name, peft_saved[name].zip()).status_code == 201
    labels = json.dumps(["red", "green", "blue"])
    multi = {"problem_type": "multi_label_classification", "labels": labels}
    assert upload(client, "multi", peft_saved["first"].zip(), **multi).status_code == 201


@pytest.fixture(scope="module")
def pipelines(foundation: FoundationFiles, peft_saved: dict[str, PeftAdapter]) -> dict[str, Any]:
    tokenizer = tokenizer_of(foundation.folder)
    made = {}
    for name, task, problem in (
        ("first", "text-classification", None),
        ("scalar", "text-classification", "regression"),
        ("multi", "text-classification", "multi_label_classification"),
        ("tokens", "token-classification", None),
    ):
        saved = peft_saved["first" if name == "multi" else name]
        base = CLASSES[saved.task_type].from_pretrained(foundation.folder, num_labels=saved.labels)
        model = PeftModel.from_pretrained(base, saved.folder).merge_and_unload().eval()
        model.config.problem_type = problem
        if name == "multi":
            model.config.id2label = {0: "red", 1: "green", 2: "blue"}
        made[name] = transformers.pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
    return made


def predict(client: httpx.Client, model: str, inputs: Any, **parameters: Any) -> Any:
    body = {"model": model, "inputs": inputs, "parameters": parameters}
    answer = client.post("/v1/predict", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def same(ours: Any, theirs: Any) -> bool:
    """Equal, but for scores, which may differ by 1e-4."""
    if isinstance(theirs, dict):
        return set(ours) == set(theirs) and all(same(ours[k], theirs[k]) for k in theirs)
    if isinstance(theirs, list):
        return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    if isinstance(theirs, float | np.floating):
        return abs(ours - float(theirs)) <= 1e-4
    return bool(ours == theirs)


@pytest.mark.parametrize("model", ["first", "multi", "scalar"])
@pytest.mark.parametrize(
    "parameters", [{}, {"top_k": None}, {"top_k": 1}, {"top_k": 2}, {"function_to_apply": "none"}]
)
def test_text_classification_is_the_pipeline_s(
    client: httpx.Client, pipelines: dict[str, Any], model: str, parameters: dict[str, Any]
) -> None:
    assert same(predict(client, model, TEXTS, **parameters), pipelines[model](TEXTS, **parameters))


def test_pairs_are_classified_as_the_pipeline_does(client: httpx.Client, pipelines: dict[str, Any]) -> None:
    assert same(predict(client, "first", PAIRS), [pipelines["first"](p) for p in PAIRS])


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_token_classification_is_the_pipeline_s(
    client: httpx.Client, pipelines: dict[str, Any], strategy: str
) -> None:
    ours = predict(client, "tokens", TEXTS, aggregation_strategy=strategy)
    assert same(ours, pipelines["tokens"](TEXTS, aggregation_strategy=strategy))


def test_one_input_is_answered_by_a_list_of_one(client: httpx.Client, pipelines: dict[str, Any]) -> None:
    assert same(predict(client, "first", TEXTS[0]), pipelines["first"]([TEXTS[0]]))


def test_feature_extraction_gives_one_pooled_vector_an_input(client: httpx.Client) -> None:
    vectors = predict(client, "embedder", TEXTS)
    assert [len(v) for v in vectors] == [384] * len(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_an_answer_names_version_digest_task_tokens_and_times(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json={"model": "first@1", "inputs": ["hello there"]}).json()
    assert answer["model"] == "first@1"
    assert answer["version"] == 1
    assert answer["digest"].startswith("sha256:")
    assert answer["task"] == "text-classification"
    assert answer["usage"] == {"prompt_tokens": 4}
    assert answer["timings"]["queue_ms"] >= 0
    assert answer["timings"]["inference_ms"] > 0


def test_a_reference_by_digest_is_answered(client: httpx.Client) -> None:
    digest = client.post("/v1/predict", json={"model": "first", "inputs": "x"}).json()["digest"]
    named = f"first@{digest[: len('sha256:') + 12]}"
    assert client.post("/v1/predict", json={"model": named, "inputs": "x"}).json()["digest"] == digest


def test_a_fan_out_answers_each_model_in_order_and_reports_failures_in_place(client: httpx.Client) -> None:
    models = ["first", "nobody", "tokens", "foundation"]
    results = client.post("/v1/predict", json={"models": models, "inputs": TEXTS[:2]}).json()["results"]
    assert [r["model"] for r in results] == models
    assert results[1]["error"]["code"] == "unknown_adapter"
    for model, result in ((m, r) for m, r in zip(models, results, strict=True) if m != "nobody"):
        assert same(result["predictions"], predict(client, model, TEXTS[:2]))


def test_a_text_in_an_object_needs_no_second_one(client: httpx.Client, pipelines: dict[str, Any]) -> None:
    inputs: list[Any] = [{"text": "ok"}, {"text": "ok", "text_pair": None}, PAIRS[0]]
    theirs = [pipelines["first"]([value])[0] for value in inputs]
    assert same(predict(client, "first", inputs), theirs)
    assert same(predict(client, "first", {"text": "ok"}), theirs[:1])
    assert same(predict(client, "tokens", {"text": TEXTS[1]}), predict(client, "tokens", TEXTS[1]))


def test_a_long_text_is_truncated_only_if_asked(client: httpx.Client, pipelines: dict[str, Any]) -> None:
    long = "word " * 700
    refused = client.post("/v1/predict", json={"model": "first", "inputs": long})
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert error["code"] == "input_too_long"
    assert "702" in error["message"]
    assert "512" in error["message"]
    theirs = pipelines["first"]([long], truncation=True, max_length=512)
    assert same(predict(client, "first", [long], truncation=True), theirs)


def test_the_foundation_alone_embeds(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json={"model": "foundation", "inputs": TEXTS}).json()
    assert answer["version"] is None
    assert answer["digest"] == client.get("/v1/limits").json()["foundation"]["fingerprint"]
    assert [len(v) for v in answer["predictions"]] == [384] * len(TEXTS)
