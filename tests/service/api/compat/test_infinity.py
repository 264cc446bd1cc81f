"""The routes in Infinity's form answer as the native ones.

infinity_client requires httpx below 0.28, so these tests send the requests that it sends, with all their fields.
"""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import openai
import pytest

from tests.live_server import RunningServer

pytestmark = pytest.mark.usefixtures("three_published")
TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]
LONG = "word " * 100
UNSPECIFIED = "default/not-specified"


def post(client: httpx.Client, path: str, body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def check_parts(answer: dict[str, Any], kind: str, model: str) -> None:
    assert (answer["object"], answer["model"]) == (kind, model)
    assert answer["id"].startswith("infinity-")
    assert answer["created"] > 1.7e9
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_are_the_native_ones(client: httpx.Client, form: str) -> None:
    body = {"model": "embedder", "input": TEXTS, "encoding_format": form}
    answer = post(client, "/embeddings", {**body, "user": None, "dimensions": 0, "modality": "text"})
    check_parts(answer, "list", "embedder")
    native = post(client, "/v1/embeddings", body)
    if form == "float":
        ours = np.array([one["embedding"] for one in answer["data"]])
        assert np.abs(ours - np.array([one["embedding"] for one in native["data"]])).max() < 1e-6
    assert [len(one["embedding"]) for one in answer["data"]] == [len(one["embedding"]) for one in native["data"]]
    assert [(one["object"], one["index"]) for one in answer["data"]] == [("embedding", i) for i in range(3)]


def test_a_long_text_is_cut_as_infinity_cuts_it(client: httpx.Client) -> None:
    vectors = [
        post(client, path, {"model": "embedder", "input": LONG, **cut})["data"][0]["embedding"]
        for path, cut in (("/embeddings", {}), ("/v1/embeddings", {"truncation": True}))
    ]
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-5)
    ranked = post(client, "/rerank", {"model": "ranking", "query": "x", "documents": [LONG]})
    assert len(ranked["results"]) == 1
    assert len(post(client, "/classify", {"model": "mood", "input": LONG, "raw_scores": False})["data"]) == 1


@pytest.mark.parametrize("model", [None, UNSPECIFIED, "foundation"])
def test_the_foundation_answers_a_client_that_names_no_model(client: httpx.Client, model: str | None) -> None:
    body = {"input": "ok", **({} if model is None else {"model": model})}
    check_parts(post(client, "/embeddings", body), "list", "foundation")


@pytest.mark.calls("openai", 'OpenAI(base_url="http://localhost:3000").embeddings.create')
def test_the_openai_client_embeds_without_the_prefix_v1(server: RunningServer, client: httpx.Client) -> None:
    api = openai.OpenAI(base_url=server.url, api_key="unused", max_retries=0)
    answer = api.embeddings.create(model="embedder", input=TEXTS, dimensions=16)
    assert len(answer.data[0].embedding) == 16


@pytest.mark.parametrize("raw", [False, True])
def test_rerank_is_the_native_ranking_with_documents_as_strings(client: httpx.Client, raw: bool) -> None:
    body = {"query": "x", "documents": TEXTS, "return_documents": True, "raw_scores": raw, "model": "ranking"}
    answer = post(client, "/rerank", {**body, "top_n": 2})
    check_parts(answer, "rerank", "ranking")
    native = post(client, "/v1/rerank", body)["results"][:2]
    assert answer["results"] == [
        {
            "index": one["index"],
            "relevance_score": pytest.approx(one["relevance_score"], abs=1e-5),
            "document": one["document"]["text"],
        }
        for one in native
    ]


@pytest.mark.parametrize("raw", [False, True])
def test_classify_gives_every_label_of_the_native_classification(client: httpx.Client, raw: bool) -> None:
    answer = post(client, "/classify", {"model": "mood", "input": TEXTS, "raw_scores": raw})
    check_parts(answer, "classify", "mood")
    parameters = {"top_k": None, **({"function_to_apply": "none"} if raw else {})}
    native = post(client, "/v1/predict", {"model": "mood", "inputs": TEXTS, "parameters": parameters})
    assert answer["data"] == [
        [{"label": one["label"], "score": pytest.approx(one["score"], abs=1e-5)} for one in labels]
        for labels in native["predictions"]
    ]


def test_models_lists_the_native_models_with_what_each_can_do(client: httpx.Client) -> None:
    listed = client.get("/models").json()["data"]
    for ours, native in zip(listed, client.get("/v1/models").json()["data"], strict=True):
        assert ours | native | {"owned_by": "infinity"} == ours
        assert 0 <= ours["stats"]["queue_fraction"] <= 1
    assert {one["id"]: one["capabilities"] for one in listed} == {
        "foundation": ["embed"],
        "embedder": ["embed"],
        "mood": ["classify"],
        "ranking": ["rerank"],
    }


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/embeddings", {"input": ["x"], "model": "nobody"}, 404, None),
        ("/embeddings", {"input": ["x"], "model": "mood"}, 422, "model"),
        ("/embeddings", {"input": ["x"], "modality": "video"}, 422, "modality"),
        ("/embeddings", {"input": ["x"], "modality": "image"}, 422, "input[0].image"),
        ("/embeddings", {"input": ["x"], "dimensions": 1000}, 422, "dimensions"),
        ("/embeddings", {"input": ["x"], "dimensions": -1}, 422, "dimensions"),
        ("/embeddings", {"input": []}, 422, "input"),
        ("/rerank", {"query": "x", "documents": ["y"]}, 422, "model"),
        ("/rerank", {"query": "x", "documents": ["y"], "model": UNSPECIFIED}, 422, "model"),
        ("/rerank", {"query": "x", "documents": ["y"], "model": "nobody"}, 404, None),
        ("/rerank", {"query": "x", "documents": [], "model": "ranking"}, 422, "documents"),
        ("/rerank", {"query": "x", "documents": ["y", 3], "model": "ranking"}, 422, "documents.1"),
        ("/rerank", {"query": "x", "documents": ["y"], "model": "ranking", "top_n": 0}, 422, "top_n"),
        ("/classify", {"input": ["x"]}, 422, "model"),
        ("/classify", {"input": ["x"], "model": "ranking"}, 422, "model"),
        ("/classify", {"input": [], "model": "mood"}, 422, "input"),
        ("/classify", {"input": ["x", 3], "model": "mood"}, 422, "input"),
        ("/classify", {"input": ["x"] * 257, "model": "mood"}, 413, "input"),
        ("/classify", {"input": [LONG], "model": "mood", "truncation": False}, 422, "input"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_by_its_field(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
