"""litellm embeds and ranks under the names of its providers, and gets the native answers."""

from __future__ import annotations

from typing import Any

import httpx
import litellm
import numpy as np
import pytest

from tests.live_server import RunningServer

pytestmark = [
    pytest.mark.usefixtures("loopback_only", "current_loop", "three_published"),
    # litellm copies attributes by their names, and pydantic has deprecated some of them.
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute on the instance is deprecated"),
]
TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]


@pytest.mark.parametrize(
    ("provider", "address", "options"),
    [
        ("openai", "/v1", {}),
        ("hosted_vllm", "/v1", {}),
        ("cohere", "/v2/embed", {}),
        ("infinity", "", {}),
        ("jina_ai", "/v1", {}),
        ("huggingface", "/models/embedder/embed", {"input_type": "embed", "normalize": False}),
    ],
)
@pytest.mark.calls("litellm", 'embedding("openai/REF")')
@pytest.mark.calls("litellm", 'embedding("hosted_vllm/REF")')
@pytest.mark.calls("litellm", 'embedding("cohere/REF")')
@pytest.mark.calls("litellm", 'embedding("infinity/REF")')
@pytest.mark.calls("litellm", 'embedding("jina_ai/REF")')
@pytest.mark.calls("litellm", 'embedding("huggingface/REF")')
def test_vectors_are_the_native_ones(
    server: RunningServer, client: httpx.Client, provider: str, address: str, options: dict[str, Any]
) -> None:
    answer = litellm.embedding(
        f"{provider}/embedder", TEXTS, api_base=f"{server.url}{address}", api_key="unused", **options
    )
    native = client.post("/v1/embeddings", json={"model": "embedder", "input": TEXTS}).json()
    ours = np.array([one["embedding"] for one in answer.data])
    assert np.abs(ours - np.array([one["embedding"] for one in native["data"]])).max() < 1e-5


@pytest.mark.parametrize(
    ("provider", "address"),
    [
        ("hosted_vllm", "/v1"),
        ("cohere", ""),
        ("infinity", ""),
        ("jina_ai", "/v1/rerank"),
        ("huggingface", "/models/ranking"),
    ],
)
@pytest.mark.calls("litellm", 'rerank("hosted_vllm/REF")')
@pytest.mark.calls("litellm", 'rerank("cohere/REF")')
@pytest.mark.calls("litellm", 'rerank("infinity/REF")')
@pytest.mark.calls("litellm", 'rerank("jina_ai/REF")')
@pytest.mark.calls("litellm", 'rerank("huggingface/REF")')
def test_a_ranking_is_the_native_one_with_its_documents(
    server: RunningServer, client: httpx.Client, provider: str, address: str
) -> None:
    answer = litellm.rerank(
        f"{provider}/ranking",
        "x",
        TEXTS,
        top_n=2,
        return_documents=True,
        api_base=f"{server.url}{address}",
        api_key="unused",
    )
    native = client.post("/v1/rerank", json={"model": "ranking", "query": "x", "documents": TEXTS, "top_n": 2})
    assert answer.results == [
        {
            "index": one["index"],
            "relevance_score": pytest.approx(one["relevance_score"], abs=1e-5),
            "document": {"text": TEXTS[one["index"]]},
        }
        for one in native.json()["results"]
    ]
