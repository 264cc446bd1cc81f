"""A foundation that generates text: other servers' routes embed with it, and refuse what it does not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.generating_server import run_generating_server

TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["x"]}


@pytest.fixture(scope="module")
def client(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        run_generating_server(new_home(), tmp_path_factory.mktemp("llama")) as running,
        running.client() as client,
    ):
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/tiny-chat/infer", {"inputs": [TENSOR]}),
        ("/v1/models/tiny-chat:predict", {"instances": ["x"]}),
        ("/invocations", {"inputs": "x", "params": {"model": "tiny-chat"}}),
    ],
)
def test_an_error_names_the_routes_that_generate(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 422, answer.text
    assert "/v1/chat/completions" in answer.text


def test_it_embeds_and_does_not_classify(client: httpx.Client) -> None:
    pooled = client.post("/pooling", json={"model": "tiny-chat", "input": "x"}).json()["data"][0]["data"]
    native = client.post("/v1/embeddings", json={"model": "tiny-chat", "input": "x"}).json()["data"][0][
        "embedding"
    ]
    assert pooled == native
    same = client.post("/score", json={"model": "tiny-chat", "text_1": "x", "text_2": "x"}).json()["data"][0]
    assert same["score"] == pytest.approx(1, abs=1e-5)
    refused = client.post("/classify", json={"model": "tiny-chat", "input": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "wrong_task")
