"""POST /v1/embeddings and GET /v1/models, called by the openai client, against sentence-transformers."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import openai
import pytest
from sentence_transformers import SentenceTransformer

from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import GENERATION, TASKS
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter

TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London."]


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
    assert limits["tasks"] == sorted(set(TASKS) - set(GENERATION))
    assert limits["foundation"]["max_tokens"] == 512


def test_openapi_states_every_route_and_its_error_shape(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/embeddings", "/v1/rerank", "/v1/models", "/v1/limits", "/v1/adapters"} <= set(
        schema["paths"]
    )
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            shape = operation["responses"]["default"]["content"]["application/json"]["schema"]
            form = (
                "/PlainError"
                if path == "/v2" or path.startswith(("/v2/health", "/v2/models", "/v2/repository"))
                else "/ErrorAnswer"
            )
            assert shape["$ref"].endswith(form), path
            assert "422" not in operation["responses"], path
    assert client.get("/docs").status_code == 200
