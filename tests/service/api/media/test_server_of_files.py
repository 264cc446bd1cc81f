"""On a server whose foundations read files alone, every route answers or refuses, and none fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.media_server import run_media_server

NAMES = {"version": 1, "alias": "live", "task": "image-classification"}


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
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            body = {**example["value"]}
            if "model" in body:
                body["model"] = name
            answer = client.post(path.format(name=name, **NAMES), params={"model": name}, json=body)
            assert answer.status_code < 500, (path, answer.text)
            sent += 1
    assert sent > 30
