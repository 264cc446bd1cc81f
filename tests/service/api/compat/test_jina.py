"""The requests that Jina's documentation shows get the native vectors."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from rootstock.adapters.bundle import Limits, open_bundle, write_bundle
from rootstock.adapters.spec import FoundationSpec
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter

pytestmark = pytest.mark.usefixtures("pooled")
TEXTS = ["Where is my parcel?", "Ada Lovelace lived in London."]
DEFAULTS = {"late_chunking": False, "truncate": True, "embedding_type": "float", "normalized": True}


@pytest.fixture(scope="module")
def pooled(client: httpx.Client, peft_saved: dict[str, PeftAdapter], spec: FoundationSpec) -> None:
    """Publish an embedder whose vectors are not normalised."""
    plain = open_bundle(peft_saved["embedder"].zip(), Limits(), spec)
    manifest = replace(plain.manifest, head=replace(plain.manifest.head, normalize=False))
    assert upload(client, "pooled", write_bundle(manifest, plain.files).to_zip()).status_code == 201


def vectors(client: httpx.Client, **fields: Any) -> np.ndarray:
    answer = client.post("/v1/embeddings", json={"model": "pooled", "input": TEXTS, **fields})
    assert answer.status_code == 200, answer.text
    return np.array([one["embedding"] for one in answer.json()["data"]])


@pytest.mark.calls("HTTP", "POST /v1/embeddings")
@pytest.mark.parametrize("task", ["retrieval.query", "retrieval.passage", "text-matching", "classification"])
def test_a_documented_request_gets_vectors_of_length_1(client: httpx.Client, task: str) -> None:
    own = vectors(client)
    norms = np.linalg.norm(own, axis=1, keepdims=True)
    assert np.abs(norms - 1).min() > 0.1
    unit = own / norms
    assert np.abs(vectors(client, task=task, **DEFAULTS) - unit).max() < 1e-5
    assert np.abs(vectors(client, normalized=False) - own).max() < 1e-5
    short = vectors(client, task=task, dimensions=8, normalized=True)
    assert np.abs(short - own[:, :8] / np.linalg.norm(own[:, :8], axis=1, keepdims=True)).max() < 1e-5


def test_the_type_of_an_embedding_is_its_encoding(client: httpx.Client) -> None:
    body = {"model": "pooled", "input": TEXTS, "embedding_type": "base64"}
    for fields in ({}, {"encoding_format": "base64"}):
        data = client.post("/v1/embeddings", json={**body, **fields}).json()["data"]
        read = np.array([np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in data])
        assert np.abs(read - vectors(client)).max() < 1e-5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"late_chunking": True}, "late_chunking"),
        ({"embedding_type": "ubinary"}, "embedding_type"),
        ({"embedding_type": "base64", "encoding_format": "float"}, "embedding_type"),
        ({"task": "summarization"}, "task"),
        ({"normalized": False, "dimensions": 8}, "normalized"),
        ({"return_multivector": True}, "return_multivector"),
    ],
)
def test_a_field_that_the_server_does_not_honour_is_refused(
    client: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    answer = client.post("/v1/embeddings", json={"model": "pooled", "input": TEXTS, **fields})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
