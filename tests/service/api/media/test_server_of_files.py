"""On a server whose foundations read files alone, every route answers or refuses, and none fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.media_server import run_media_server

NAMES = {
    "version": 1, "alias": "live", "task": "image-classification", "id": "0123456789abcdef", "tenant": "acme",
}  # fmt: skip


@pytest.fixture(scope="module")
def client(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        run_media_server(new_home(), tmp_path_factory.mktemp("media")) as media,
        media.running.client() as client,
    ):
        yield client


@pytest.fixture(scope="module")
def paths(client: httpx.Client) -> dict[str, Any]:
    paths: dict[str, Any] = client.get("/openapi.json").json()["paths"]
    return paths


@pytest.mark.parametrize("name", ["signs", "digits", "vision", "foundation"])
def test_no_route_that_reads_fails(client: httpx.Client, paths: dict[str, Any], name: str) -> None:
    for path, methods in paths.items():
        if "get" in methods:
            answer = client.get(path.format(name=name, **NAMES))
            assert answer.status_code < 500, (path, answer.text)
    example = client.get("/").json()["example"]
    assert "-F model=digits -F audio=@recording.wav" in example


@pytest.mark.parametrize("name", ["signs", "digits", "vision", "foundation"])
def test_a_request_with_texts_is_refused_on_every_route(
    client: httpx.Client, paths: dict[str, Any], name: str
) -> None:
    sent = 0
    for path, methods in paths.items():
        if path.startswith("/v1/keys"):
            # From its first key on, a server needs one.
            continue
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            body = {**example["value"]}
            if "model" in body:
                body["model"] = name
            answer = client.post(path.format(name=name, **NAMES), params={"model": name}, json=body)
            assert answer.status_code < 500, (path, answer.text)
            sent += 1
    assert sent > 30


@pytest.mark.parametrize(("name", "modality"), [("signs", "image"), ("digits", "audio"), ("vision", "image")])
def test_the_open_inference_protocol_refuses_a_model_of_files(
    client: httpx.Client, name: str, modality: str
) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    for answer in (
        client.get(f"/v2/models/{name}"),
        client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}),
    ):
        assert answer.status_code == 422
        assert f"takes {modality} inputs" in answer.json()["error"]
