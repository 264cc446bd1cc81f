"""Clients in separate environments call a server, and get the native answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.live_server import RunningServer
from tests.service.api.compat.environments.environment import answers_of
from tests.service.generating_server import run_generating_server

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("three_published")]
TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London.", "ok"]


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_generating_server(new_home(), tmp_path_factory.mktemp("llama")) as running:
        yield running


def post(client: httpx.Client, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def vectors(client: httpx.Client) -> Any:
    data = post(client, "/v1/embeddings", model="embedder", input=TEXTS)["data"]
    return pytest.approx(np.array([one["embedding"] for one in data]), abs=1e-5)


@pytest.fixture
def ranking(client: httpx.Client) -> list[tuple[int, Any]]:
    """Return the index and the score of each text, best first."""
    results = post(client, "/v1/rerank", model="ranking", query="x", documents=TEXTS)["results"]
    return [(one["index"], pytest.approx(one["relevance_score"], abs=1e-5)) for one in results]


@pytest.fixture
def classes(client: httpx.Client) -> list[list[tuple[str, Any]]]:
    """Return the labels of each text with their scores, best first."""
    parameters = {"top_k": None}
    rows = post(client, "/v1/predict", model="mood", inputs=TEXTS, parameters=parameters)["predictions"]
    return [[(one["label"], pytest.approx(one["score"], abs=1e-5)) for one in row] for row in rows]


@pytest.fixture
def continued(client: httpx.Client) -> str:
    body = {"model": "tiny-chat", "prompt": TEXTS[0], "max_tokens": 8, "temperature": 0}
    text: str = post(client, "/v1/completions", **body)["choices"][0]["text"]
    return text


@pytest.fixture
def chatted(client: httpx.Client) -> str:
    messages = [{"role": "user", "content": TEXTS[0]}]
    body = {"model": "tiny-chat", "messages": messages, "max_tokens": 8, "temperature": 0}
    text: str = post(client, "/v1/chat/completions", **body)["choices"][0]["message"]["content"]
    return text


def pairs(rows: Any, key: str, value: str) -> list[tuple[Any, Any]]:
    return [(row[key], row[value]) for row in rows]


@pytest.mark.calls("infinity_client", "embeddings.sync")
@pytest.mark.calls("infinity_client", "rerank.sync")
@pytest.mark.calls("infinity_client", "classify.sync")
@pytest.mark.calls("infinity_client", "models.sync")
@pytest.mark.calls("infinity_client", "health.sync")
def test_infinity_s_client(server: RunningServer, vectors: Any, ranking: Any, classes: Any) -> None:
    found = answers_of("infinity", server.url)
    assert np.array([one["embedding"] for one in found["embeddings.sync"]["data"]]) == vectors
    assert pairs(found["rerank.sync"]["results"], "index", "relevance_score") == ranking
    assert [pairs(row, "label", "score") for row in found["classify.sync"]["data"]] == classes
    assert {"default", "tiny-chat", "mood"} <= {one["id"] for one in found["models.sync"]["data"]}
    assert "health.sync" in found


@pytest.mark.calls("kserve", "InferenceRESTClient.infer")
@pytest.mark.calls("kserve", 'InferenceRESTClient(RESTConfig(protocol="v1")).infer')
@pytest.mark.calls("kserve", "InferenceRESTClient.is_server_ready")
@pytest.mark.calls("kserve", "InferenceRESTClient.is_server_live")
@pytest.mark.calls("kserve", "InferenceRESTClient.is_model_ready")
def test_kserve_s_client(server: RunningServer, classes: Any) -> None:
    found = answers_of("kserve", server.url)
    best = [row[0] for row in classes]
    assert found["infer"] == [label for label, _ in best]
    assert pairs(found["infer of v1"]["predictions"], "label", "score") == best
    assert found["is_server_ready"] is found["is_server_live"] is found["is_model_ready"] is True
    assert "no adapter is named 'nobody'" in found["error"]


@pytest.mark.calls("langchain-huggingface", "HuggingFaceEndpoint(typical_p=None).invoke")
@pytest.mark.calls("langchain-huggingface", "HuggingFaceEndpoint(typical_p=None).stream")
@pytest.mark.calls("langchain-huggingface", "ChatHuggingFace.invoke")
@pytest.mark.calls("langchain-huggingface", "ChatHuggingFace.stream")
def test_langchain_s_client_of_hugging_face(server: RunningServer, continued: str, chatted: str) -> None:
    found = answers_of("langchain", server.url)
    assert found["HuggingFaceEndpoint.invoke"] == continued
    assert "".join(found["HuggingFaceEndpoint.stream"]) == continued
    assert found["ChatHuggingFace.invoke"] == chatted
    assert "".join(found["ChatHuggingFace.stream"]) == chatted
    assert "typical_p" in found["HuggingFaceEndpoint by default"]


@pytest.mark.calls("llama-index-embeddings-openai-like", "OpenAILikeEmbedding.get_text_embedding_batch")
@pytest.mark.calls(
    "llama-index-embeddings-text-embeddings-inference", "TextEmbeddingsInference.get_text_embedding_batch"
)
@pytest.mark.calls("llama-index-llms-openai-like", "OpenAILike.complete")
@pytest.mark.calls("llama-index-llms-openai-like", "OpenAILike.stream_complete")
@pytest.mark.calls("llama-index-llms-openai-like", "OpenAILike.chat")
@pytest.mark.calls("llama-index-llms-openai-like", "OpenAILike.stream_chat")
def test_llama_index(server: RunningServer, vectors: Any, continued: str, chatted: str) -> None:
    found = answers_of("llama_index", server.url)
    assert np.array(found["OpenAILikeEmbedding.get_text_embedding_batch"]) == vectors
    assert np.array(found["TextEmbeddingsInference.get_text_embedding_batch"]) == vectors
    assert found["OpenAILike.complete"] == "".join(found["OpenAILike.stream_complete"]) == continued
    assert found["OpenAILike.chat"] == "".join(found["OpenAILike.stream_chat"]) == chatted


@pytest.mark.calls("tei-client", "HttpClient.health")
@pytest.mark.calls("tei-client", "HttpClient.info")
@pytest.mark.calls("tei-client", "HttpClient.embed")
@pytest.mark.calls("tei-client", "HttpClient.tokenize")
@pytest.mark.calls("tei-client", "HttpClient.decode")
@pytest.mark.calls("tei-client", "HttpClient.rerank")
@pytest.mark.calls("tei-client", "HttpClient.classify")
def test_a_client_of_tei(
    server: RunningServer, client: httpx.Client, vectors: Any, ranking: Any, classes: Any
) -> None:
    found = answers_of("tei", server.url)
    assert found["HttpClient.health"] is True
    assert (
        found["HttpClient.info"] == client.get("/info", params={"model": "embedder"}).json()["max_input_length"]
    )
    assert np.array(found["HttpClient.embed"]) == vectors
    tokens = [post(client, "/tokenize", model="embedder", prompt=text)["tokens"] for text in TEXTS]
    assert found["HttpClient.tokenize"] == tokens
    assert found["HttpClient.decode"] == [text.lower() for text in TEXTS]
    assert pairs(found["HttpClient.rerank"]["ranks"], "index", "score") == ranking
    assert [pairs(row["scores"], "label", "score") for row in found["HttpClient.classify"]] == classes


@pytest.mark.calls("text-generation", "Client.generate")
@pytest.mark.calls("text-generation", "Client.generate_stream")
def test_the_client_of_text_generation_inference(server: RunningServer, continued: str) -> None:
    found = answers_of("tgi", server.url)
    assert found["Client.generate"] == "".join(found["Client.generate_stream"]) == continued
    assert found["tokens"] == 8


@pytest.mark.calls("openai (Node)", "embeddings.create")
@pytest.mark.calls("openai (Node)", "chat.completions.create")
@pytest.mark.calls("openai (Node)", "chat.completions.create({stream: true})")
@pytest.mark.calls("openai (Node)", "completions.create")
@pytest.mark.calls("openai (Node)", "models.list")
@pytest.mark.calls("openai (Node)", "moderations.create")
@pytest.mark.calls("@huggingface/inference (Node)", "featureExtraction")
@pytest.mark.calls("@huggingface/inference (Node)", "textClassification")
@pytest.mark.calls("@huggingface/inference (Node)", "sentenceSimilarity")
@pytest.mark.calls("@huggingface/inference (Node)", "textGeneration")
@pytest.mark.calls("@huggingface/inference (Node)", "chatCompletion")
@pytest.mark.calls("cohere-ai (Node)", "CohereClientV2.embed")
@pytest.mark.calls("cohere-ai (Node)", "CohereClientV2.rerank")
@pytest.mark.calls("cohere-ai (Node)", "CohereClient.embed")
def test_clients_in_javascript(
    server: RunningServer, vectors: Any, ranking: Any, classes: Any, continued: str, chatted: str
) -> None:
    found = answers_of("node", server.url)
    assert np.array([one["embedding"] for one in found["openai embeddings.create"]]) == vectors
    assert found["openai chat.completions.create"] == chatted
    assert "".join(found["openai chat.completions.create, stream"]) == chatted
    assert found["openai completions.create"] == continued
    assert {"default", "tiny-chat", "mood"} <= set(found["openai models.list"])
    scores = [
        sorted(one["category_scores"].items(), key=lambda item: -item[1])
        for one in found["openai moderations.create"]
    ]
    assert scores == classes
    assert found["openai refusal"] == "NotFoundError"
    assert np.array(found["hub featureExtraction"]) == vectors
    assert pairs(found["hub textClassification"], "label", "score") == classes[0]
    assert found["hub sentenceSimilarity"][0] == pytest.approx(1, abs=1e-5)
    assert found["hub chatCompletion"] == chatted
    assert found["hub textGeneration"]["generated_text"] == continued
    assert np.array(found["cohere v2 embed"]["embeddings"]["float"]) == vectors
    assert pairs(found["cohere v2 rerank"]["results"], "index", "relevanceScore") == ranking
    assert np.array(found["cohere embed"]["embeddings"]) == vectors
