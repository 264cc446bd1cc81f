"""Quotas over HTTP: 429 with the standard headers, tokens on every route that computes, 413 for stored bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.service.settings import Settings
from tests.live_server import OWNER, RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.service.engine.generate.families import make_decoder

PREDICT = {"model": "foundation", "inputs": "x"}
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def home(new_home: Callable[[], Path]) -> Path:
    return new_home()


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    tiny = make_decoder("llama", tmp_path_factory.mktemp("decoder") / "chat")
    settings = Settings(
        home=home, demo=False, log_level="error", admin_key=OWNER, foundations=f"default,{tiny.folder}"
    )
    with run_server(settings) as running:
        yield running


@pytest.fixture(scope="module")
def owner(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client(OWNER) as client:
        yield client


def key(owner: httpx.Client, **fields: Any) -> str:
    answer = owner.post("/v1/keys", json={"role": "publish", **fields})
    assert answer.status_code == 201, answer.text
    text: str = answer.json()["key"]
    return text


def remaining(answer: httpx.Response, policy: str) -> int:
    state = next(part for part in answer.headers["ratelimit"].split(", ") if part.startswith(f'"{policy}"'))
    return int(state.partition("r=")[2].partition(";")[0])


def test_requests_over_the_quota_are_429_until_later_and_other_keys_go_on(
    server: RunningServer, owner: httpx.Client
) -> None:
    with (
        server.client(key(owner, requests_per_minute=2)) as client,
        server.client(key(owner)) as other,
    ):
        answers = [client.post("/v1/predict", json=PREDICT) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [remaining(answer, "key-requests") for answer in answers] == [1, 0]
        assert answers[0].headers["ratelimit-policy"] == '"key-requests";q=2;w=60'
        for path in ("/v1/models", "/v2/models/foundation", "/nowhere"):
            refused = client.get(path)
            assert refused.status_code == 429
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert remaining(refused, "key-requests") == 0
        error = client.get("/v1/models").json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "quota_exceeded")
        assert client.get("/readyz").status_code == client.get("/docs").status_code == 200
        free = other.post("/v1/predict", json=PREDICT)
        assert free.status_code == 200
        assert "ratelimit" not in free.headers


def test_a_tenant_s_keys_share_its_quota(server: RunningServer, owner: httpx.Client) -> None:
    assert owner.put("/v1/tenants/acme/quota", json={"requests_per_minute": 3}).status_code == 200
    statuses = []
    for _ in range(4):
        with server.client(key(owner, tenant="acme")) as client:
            statuses.append(client.get("/v1/models").status_code)
    assert statuses == [200, 200, 200, 429]
    assert owner.get("/v1/tenants/acme/quota").json()["requests_per_minute"] == 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/predict", PREDICT),
        ("/v1/predict", {"models": ["foundation"], "inputs": "x"}),
        ("/v1/embeddings", {"model": "foundation", "input": "x"}),
        ("/embed", {"inputs": "x"}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/completions", {"model": "chat", "prompt": "hello", "max_tokens": 8, "n": 2}),
    ],
)
def test_the_tokens_of_an_answer_count_on_every_route(
    server: RunningServer, owner: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    with server.client(key(owner, tokens_per_minute=10**6)) as client:
        first = client.post(path, json=body)
        assert first.status_code == 200, first.text
        assert remaining(first, "key-tokens") == 10**6
        spent = 10**6 - remaining(client.get("/v1/models"), "key-tokens")
    if body.get("stream"):
        assert spent >= 8
    else:
        usage = first.json().get("usage") if isinstance(first.json(), dict) else None
        expected = 3 if usage is None else usage["prompt_tokens"] + usage.get("completion_tokens", 0)
        assert spent == expected


def test_a_call_that_is_refused_costs_no_tokens(server: RunningServer, owner: httpx.Client) -> None:
    with server.client(key(owner, tokens_per_minute=1000)) as client:
        for body in ({"model": "nobody", "inputs": "x"}, {"model": "foundation", "inputs": 1}):
            assert client.post("/v1/predict", json=body).status_code in (404, 422)
        assert remaining(client.get("/v1/models"), "key-tokens") == 1000


def test_tokens_over_the_quota_refuse_the_next_call(server: RunningServer, owner: httpx.Client) -> None:
    with server.client(key(owner, tokens_per_minute=5)) as client:
        assert client.post("/v1/predict", json={**PREDICT, "inputs": ["one two three"] * 4}).status_code == 200
        refused = client.post("/v1/predict", json=PREDICT)
        assert refused.status_code == 429
        assert "5 tokens a minute" in refused.json()["error"]["message"]
        # 20 tokens at 5 a minute are four minutes, of which one was free.
        assert 60 < int(refused.headers["retry-after"]) <= 240


def stored_files(home: Path) -> set[Path]:
    return {path for path in (home / "store").rglob("*") if path.is_file()}


def test_an_upload_over_the_stored_quota_is_413_and_leaves_nothing(
    home: Path, server: RunningServer, owner: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    first, second = peft_saved["first"].zip(), peft_saved["second"].zip()
    with server.client(key(owner, stored_mb=3)) as client:
        assert upload(client, "mood", first).status_code == 201
        stored = owner.get("/v1/tenants/default/quota").json()["stored_bytes"]
        assert 0 < stored < 2**20
        number = 0
        while True:
            # Each is new content, because the labels are part of it.
            number += 1
            before = stored_files(home)
            answer = upload(client, "more", second, labels=json.dumps([f"{number}-{i}" for i in range(3)]))
            if answer.status_code != 201:
                break
            assert number < 100
        assert answer.status_code == 413, answer.text
        error = answer.json()["error"]
        assert error["code"] == "stored_quota_exceeded"
        assert "3 MiB" in error["message"]
        full = owner.get("/v1/tenants/default/quota").json()["stored_bytes"]
        assert 2 * 2**20 < full <= 3 * 2**20
        assert stored_files(home) == before
        # What is stored already takes no more room, and room that is free again may be used.
        assert upload(client, "mood", first).status_code == 200
        assert client.delete("/v1/adapters/more").status_code == 204
        assert upload(client, "more", second).status_code == 413, "what can come back takes room"
        assert client.delete("/v1/adapters/more?purge=true").status_code == 204
        assert upload(client, "more", second).status_code == 201


@pytest.mark.parametrize(
    "body", [{"requests_per_minute": 0}, {"stored_mb": -1}, {"tokens_per_minute": "9"}, {"x": 1}]
)
def test_a_quota_that_cannot_be_is_422(owner: httpx.Client, body: dict[str, Any]) -> None:
    assert owner.put("/v1/tenants/acme2/quota", json=body).status_code == 422
    assert owner.put("/v1/tenants/N o/quota", json={}).status_code == 422
    assert owner.get("/v1/tenants/acme2/quota").json()["requests_per_minute"] is None
