"""Cohere's own client embeds and ranks with a server, and gets the native answers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import numpy as np
import pytest
from cohere.errors import NotFoundError, UnprocessableEntityError

from tests.bounds import HANG
from tests.live_server import RunningServer

pytestmark = pytest.mark.usefixtures("three_published")
TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]
LONG = "word " * 400


@pytest.fixture(scope="module")
def old(server: RunningServer) -> Iterator[cohere.Client]:
    with httpx.Client(timeout=HANG) as connection:
        yield cohere.Client("unused", base_url=server.url, httpx_client=connection)


@pytest.fixture(scope="module")
def new(server: RunningServer) -> Iterator[cohere.ClientV2]:
    with httpx.Client(timeout=HANG) as connection:
        yield cohere.ClientV2("unused", base_url=server.url, httpx_client=connection)


def native_vectors(client: httpx.Client, texts: list[str], **fields: Any) -> Any:
    answer = client.post("/v1/embeddings", json={"model": "embedder", "input": texts, **fields}).json()
    return pytest.approx(np.array([one["embedding"] for one in answer["data"]]), abs=1e-5)


def native_ranking(client: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "ranking", "query": "x", "documents": TEXTS, **fields}
    results: list[dict[str, Any]] = client.post("/v1/rerank", json=body).json()["results"]
    return results


@pytest.mark.calls("cohere", "Client.embed")
def test_version_1_embeds_more_texts_than_one_of_its_requests_holds(
    old: cohere.Client, client: httpx.Client
) -> None:
    texts = [f"{text} {i}" for i in range(40) for text in TEXTS]
    answer = old.embed(texts=texts, model="embedder", input_type="search_document")
    assert np.array(answer.embeddings) == native_vectors(client, texts)
    assert answer.response_type == "embeddings_floats"
    assert answer.texts == texts


def test_version_1_embeds_by_type(old: cohere.Client, client: httpx.Client) -> None:
    answer = old.embed(texts=TEXTS, model="embedder", embedding_types=["float", "base64"], batching=False)
    assert answer.response_type == "embeddings_by_type"
    assert np.array(answer.embeddings.float_) == native_vectors(client, TEXTS)
    read = [np.frombuffer(base64.b64decode(one), "<f4") for one in answer.embeddings.base64 or ()]
    assert np.array(read) == native_vectors(client, TEXTS)


@pytest.mark.calls("cohere", "ClientV2.embed")
def test_version_2_embeds_texts_and_inputs(new: cohere.ClientV2, client: httpx.Client) -> None:
    from cohere import EmbedInput, TextEmbedContent

    inputs = [EmbedInput(content=[TextEmbedContent(text=text)]) for text in TEXTS]
    sources: list[dict[str, Any]] = [{"texts": TEXTS}, {"inputs": inputs}]
    for source in sources:
        answer = new.embed(model="embedder", input_type="search_query", output_dimension=16, **source)
        assert np.array(answer.embeddings.float_) == native_vectors(client, TEXTS, dimensions=16)
        assert answer.meta is not None
        assert answer.meta.billed_units is not None
        assert answer.meta.billed_units.input_tokens


def test_a_long_text_is_cut_at_its_end_unless_the_request_says_otherwise(
    new: cohere.ClientV2, client: httpx.Client
) -> None:
    text = f"parcel {LONG} London"
    for chosen, side in (({}, "END"), ({"truncate": "START"}, "START")):
        answer = new.embed(model="embedder", input_type="search_query", texts=[text], **chosen)  # type: ignore[arg-type]
        assert np.array(answer.embeddings.float_) == native_vectors(client, [text], truncate=side)
    with pytest.raises(UnprocessableEntityError, match="shorten it"):
        new.embed(model="embedder", input_type="search_query", texts=[text], truncate="NONE")


@pytest.mark.calls("cohere", "Client.rerank")
def test_version_1_ranks_strings_and_objects(old: cohere.Client, client: httpx.Client) -> None:
    documents = [{"text": text, "id": str(i)} for i, text in enumerate(TEXTS)]
    wanted = [(one["index"], pytest.approx(one["relevance_score"], abs=1e-5)) for one in native_ranking(client)]
    for sent in (TEXTS, documents):
        answer = old.rerank(model="ranking", query="x", documents=sent, return_documents=True)
        assert [(one.index, one.relevance_score) for one in answer.results] == wanted
        assert [one.document and one.document.text for one in answer.results] == [TEXTS[i] for i, _ in wanted]


@pytest.mark.calls("cohere", "ClientV2.rerank")
def test_version_2_ranks_and_cuts_long_documents(new: cohere.ClientV2, client: httpx.Client) -> None:
    documents = [*TEXTS, LONG]
    answer = new.rerank(model="ranking", query="x", documents=documents, top_n=3)
    wanted = native_ranking(client, documents=documents, top_n=3, truncation=True)
    assert [(one.index, one.relevance_score) for one in answer.results] == [
        (one["index"], pytest.approx(one["relevance_score"], abs=1e-5)) for one in wanted
    ]
    assert answer.id
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.input_tokens


def test_an_answer_names_the_digest_that_computed_it(client: httpx.Client) -> None:
    ranked = client.post("/v2/rerank", json={"model": "ranking", "query": "x", "documents": TEXTS}).json()
    native = client.post("/v1/rerank", json={"model": "ranking", "query": "x", "documents": TEXTS}).json()
    assert (ranked["digest"], ranked["version"]) == (native["digest"], 1)
    shown = client.get("/v1/adapters/embedder/versions/1").json()
    for path in ("/v1/embed", "/v2/embed"):
        answer = client.post(path, json={"model": "embedder", "texts": TEXTS}).json()
        assert answer["digest"] == shown["digest"]


def test_a_refusal_reaches_the_caller_as_cohere_s_own_error(old: cohere.Client, new: cohere.ClientV2) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        new.rerank(model="nobody", query="x", documents=TEXTS)
    with pytest.raises(UnprocessableEntityError, match="text-ranking"):
        old.rerank(model="mood", query="x", documents=TEXTS)
    with pytest.raises(UnprocessableEntityError, match="'images'"):
        new.embed(model="embedder", input_type="image", images=["data:image/png;base64,AAAA"])


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/embed", {"texts": []}, 422, "texts"),
        ("/v1/embed", {"texts": "x"}, 422, "texts"),
        ("/v1/embed", {"texts": ["x"], "embedding_types": []}, 422, "embedding_types"),
        ("/v1/embed", {"texts": ["x"], "embedding_types": ["int8"]}, 422, "embedding_types.0"),
        ("/v1/embed", {"texts": ["x"], "truncate": "LEFT"}, 422, "truncate"),
        ("/v1/embed", {"texts": ["x"], "input_type": "image"}, 422, "input_type"),
        ("/v1/embed", {"texts": ["x"], "model": "mood"}, 422, "model"),
        ("/v1/embed", {"texts": ["x"] * 2049}, 413, "texts"),
        ("/v1/embed", {"texts": ["x" * (2**18 + 1)]}, 413, "texts[0]"),
        ("/v2/embed", {"model": "embedder"}, 422, "texts"),
        ("/v2/embed", {"texts": ["x"], "inputs": [{"content": [{"text": "x"}]}]}, 422, "inputs"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "image_url"}]}]}, 422, "inputs[0].content[0].type"),
        ("/v2/embed", {"inputs": [{"content": []}]}, 422, "inputs[0].content"),
        ("/v2/embed", {"texts": ["x"], "output_dimension": 1000}, 422, "output_dimension"),
        ("/v2/embed", {"texts": ["x"], "max_tokens": 3}, 422, "max_tokens"),
        ("/v2/rerank", {"query": "x", "documents": ["y"]}, 422, "model"),
        ("/v2/rerank", {"model": "ranking", "query": "x", "documents": []}, 422, "documents"),
        ("/v2/rerank", {"model": "ranking", "query": "x", "documents": [{"title": "y"}]}, 422, "documents.0"),
        ("/v2/rerank", {"model": "ranking", "query": "x", "documents": ["y"] * 257}, 413, "documents"),
        (
            "/v2/rerank",
            {"model": "ranking", "query": "x", "documents": [LONG], "truncation": False},
            422,
            "documents",
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused_by_its_field(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    answer = client.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text
