"""POST /v1/embeddings and GET /v1/models, called by the openai client, against sentence-transformers."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from sentence_transformers import SentenceTransformer

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import GENERATION
from rootstock.adapters.tasks import TASKS
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter

TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London."]


@pytest.mark.calls("openai", "embeddings.create")
def test_the_foundation_embeds_as_sentence_transformers_does(
    api: openai.OpenAI, foundation: FoundationFiles
) -> None:
    expected = SentenceTransformer(str(foundation.folder), device="cpu").encode(TEXTS)
    # The openai client asks for base64 and decodes it.
    answer = api.embeddings.create(model="foundation", input=TEXTS)
    assert np.abs(np.array([d.embedding for d in answer.data]) - expected).max() < 1e-5
    as_floats = api.embeddings.create(model="foundation", input=TEXTS, encoding_format="float")
    assert np.abs(np.array([d.embedding for d in as_floats.data]) - expected).max() < 1e-5
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


def test_dimensions_truncate_and_renormalise(api: openai.OpenAI) -> None:
    whole = np.array(api.embeddings.create(model="foundation", input=TEXTS[0]).data[0].embedding)
    short = np.array(api.embeddings.create(model="foundation", input=TEXTS[0], dimensions=32).data[0].embedding)
    assert np.abs(short - whole[:32] / np.linalg.norm(whole[:32])).max() < 1e-6
    with pytest.raises(openai.UnprocessableEntityError, match="384"):
        api.embeddings.create(model="foundation", input=TEXTS[0], dimensions=385)


def test_base64_is_little_endian_fp32(client: httpx.Client) -> None:
    body = {"model": "foundation", "input": TEXTS[0], "encoding_format": "base64"}
    raw = base64.b64decode(client.post("/v1/embeddings", json=body).json()["data"][0]["embedding"])
    assert abs(np.linalg.norm(np.frombuffer(raw, "<f4")) - 1) < 1e-5


@pytest.mark.parametrize("form", ["one", "many"])
@pytest.mark.calls("openai", "embeddings.create(input=ids)")
def test_the_tokens_of_a_text_embed_as_the_text(client: httpx.Client, api: openai.OpenAI, form: str) -> None:
    read = [client.post("/tokenize", json={"model": "foundation", "prompt": text}).json() for text in TEXTS]
    ids = [tokens["tokens"] for tokens in read]
    expected = api.embeddings.create(model="foundation", input=TEXTS)
    answer = api.embeddings.create(model="foundation", input=ids if form == "many" else ids[0])
    assert [d.embedding for d in answer.data] == [d.embedding for d in expected.data[: len(answer.data)]]
    assert answer.usage.prompt_tokens == sum(map(len, ids if form == "many" else ids[:1]))


@pytest.mark.parametrize(
    "ids",
    [
        [15339, 1917],  # "hello world" under cl100k: words of this vocabulary, but not a text's tokens
        [101, 100257, 102],
        [101, -1, 102],
        [101, 10**30, 102],
        [101, 102, 102],
        [2088],
        [101, 30000],
        [0],
        [101, 100, 102],
    ],
)
def test_tokens_that_are_not_a_text_s_are_422_with_the_remedy(client: httpx.Client, ids: list[int]) -> None:
    for given, param in ((ids, "input"), ([[101, 102], ids], "input[1]")):
        answer = client.post("/v1/embeddings", json={"model": "foundation", "input": given})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_input", param)
        assert "check_embedding_ctx_length=False" in error["message"]


@pytest.mark.parametrize(
    "given",
    [[], [[]], [[], [101, 102]], [True], [1.5], [[1, "a"]], ["a", 1], [1, "a"], [[[1]]], {}, None, [None], 3,
     [["a"]], [[101, 102], "a"]],
)  # fmt: skip
def test_an_input_of_another_form_is_422(client: httpx.Client, given: Any) -> None:
    answer = client.post("/v1/embeddings", json={"model": "foundation", "input": given})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "input")


def test_too_many_tokens_and_too_many_inputs_are_413(client: httpx.Client) -> None:
    for given in ([2088] * (2**14 + 1), [[2088] * (2**14 + 1)], ["a"] * 2049, [[101, 102]] * 2049):
        answer = client.post("/v1/embeddings", json={"model": "foundation", "input": given})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_2048_inputs_are_answered_in_their_order(api: openai.OpenAI) -> None:
    distinct = [f"number {i}" for i in range(300)]
    texts = (distinct * 7)[:2048]
    answer = api.embeddings.create(model="foundation", input=texts)
    assert [d.index for d in answer.data] == list(range(2048))
    vectors = np.array([d.embedding for d in answer.data])
    alone = np.array(
        [api.embeddings.create(model="foundation", input=t).data[0].embedding for t in distinct[::60]]
    )
    assert np.abs(vectors[::60][:5] - alone).max() < 1e-5
    assert np.abs(vectors[300:600] - vectors[:300]).max() < 1e-5


def test_the_error_of_a_later_part_names_the_input_of_the_request(client: httpx.Client) -> None:
    texts = ["a"] * 299 + ["a" * (2**18 + 1)]
    answer = client.post("/v1/embeddings", json={"model": "foundation", "input": texts})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (413, "input[299]")
    assert "[43]" not in error["message"]
    texts[299] = "long " * 600
    assert client.post("/v1/embeddings", json={"model": "foundation", "input": texts}).status_code == 422
    cut = client.post("/v1/embeddings", json={"model": "foundation", "input": texts, "truncation": True})
    assert cut.status_code == 200


def test_a_timeout_counts_for_all_parts_together(serve: Callable[..., RunningServer]) -> None:
    # Each part is one text, far from the timeout; all together take several times as long.
    with serve(max_inputs=1).client() as client:
        body = {"model": "foundation", "input": ["a few words"] * 2048, "timeout": 1}
        assert client.post("/v1/embeddings", json=body).status_code == 504
        assert client.post("/v1/embeddings", json={**body, "input": ["a", "b"]}).status_code == 200


@pytest.mark.calls("langchain-openai", "OpenAIEmbeddings(check_embedding_ctx_length=False)")
def test_langchain_embeds_texts_and_learns_how_when_it_sends_another_vocabulary_s_ids(
    server: RunningServer, api: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A vocabulary of bytes, because tiktoken loads the real one from the internet.
    of_bytes = tiktoken.Encoding(
        "cl100k_base", pat_str=r".+", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", of_bytes)
    options: dict[str, Any] = {"model": "foundation", "base_url": f"{server.url}/v1", "api_key": "unused"}
    with pytest.raises(openai.UnprocessableEntityError, match="check_embedding_ctx_length=False"):
        OpenAIEmbeddings(**options).embed_documents(TEXTS)
    found = OpenAIEmbeddings(**options, check_embedding_ctx_length=False).embed_documents(TEXTS)
    expected = [d.embedding for d in api.embeddings.create(model="foundation", input=TEXTS).data]
    assert np.abs(np.array(found) - expected).max() < 1e-6


def test_an_adapter_of_another_task_is_422(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    upload(client, "first", peft_saved["first"].zip())
    answer = client.post("/v1/embeddings", json={"model": "first", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "wrong_task")


def test_models_lists_the_foundation_and_every_adapter(
    api: openai.OpenAI, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    upload(client, "first", peft_saved["first"].zip())
    listed = {m.id: m for m in api.models.list()}
    assert {"foundation", "first"} <= set(listed)
    with pytest.raises(openai.NotFoundError):
        api.embeddings.create(model="nobody", input="x")


def test_limits_state_what_the_server_takes(client: httpx.Client) -> None:
    limits = client.get("/v1/limits").json()
    assert limits["max_rank"] == 64
    of_texts = {task.name for task in TASKS if task.modality == "text" and task.heads}
    assert limits["tasks"] == sorted(of_texts - set(GENERATION))
    assert limits["foundation"]["max_tokens"] == 512
