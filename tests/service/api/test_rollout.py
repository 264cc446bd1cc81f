"""Shadows and rollback rules on a real server: what they compare, what they take back, what they leave alone."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from rootstock.service.api.server import Server
from rootstock.service.composition.server_parts import open_server
from rootstock.service.rollout import rollout_watcher
from rootstock.service.rollout.live_traffic import LiveTraffic
from rootstock.service.settings import Settings
from tests.bounds import HANG
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import TEXTS, PeftAdapter
from tests.service.test_metrics import value
from tests.tenants import believe_headers, client_of
from tests.webhook_target import webhook_target

T = TypeVar("T")
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
RULE = {"window_seconds": 600, "min_requests": 8, "max_disagreement": 0.2}


class ObservedServer:
    """A running server whose shadows and judgements a test waits for."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.settings = Settings(home=home, demo=False, log_level="error", **settings)
        self.running: RunningServer
        self._loop: asyncio.AbstractEventLoop
        self._server: Server

    @asynccontextmanager
    async def open(self, settings: Settings) -> AsyncIterator[Server]:
        async with open_server(settings) as server:
            self._loop, self._server = asyncio.get_running_loop(), server
            # Every request is in its share.
            self.watch.draw = lambda: 0.0
            yield server

    @property
    def watch(self) -> LiveTraffic:
        watch = self._server.foundations.watch
        assert isinstance(watch, LiveTraffic)
        return watch

    def judge(self) -> None:
        """Let the server read what has changed, and judge."""
        self._await(self._server.rollout.judge())

    def ask(self, client: httpx.Client, reference: str = "mood", times: int = 10) -> list[dict[str, Any]]:
        """Return the answers to some requests, once their shadows have ended."""
        self.judge()
        answers = []
        for i in range(times):
            body = {"model": reference, "inputs": f"{TEXTS[i % len(TEXTS)]} {i}"}
            answer = client.post("/v1/predict", json=body)
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())
            self._await(self.watch.settle())
        return answers

    def _await(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(HANG)


@pytest.fixture
def observed(new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[ObservedServer]:
    # The server judges only when a test tells it to.
    monkeypatch.setattr(rollout_watcher, "INTERVAL_S", 3600)
    server = ObservedServer(new_home())
    with run_server(server.settings, server.open, prepare=believe_headers) as server.running:
        yield server


@pytest.fixture
def client(observed: ObservedServer) -> Iterator[httpx.Client]:
    with observed.running.client() as client:
        yield client


def publish(client: httpx.Client, adapter: PeftAdapter, labels: str, name: str = "mood", **fields: str) -> int:
    answer = upload(client, name, adapter.zip(), labels=json.dumps(labels.split(",")), **fields)
    assert answer.status_code == 201, answer.text
    version: int = answer.json()["version"]
    return version


def predictions(answers: list[dict[str, Any]]) -> list[Any]:
    return [answer["predictions"] for answer in answers]


def change(
    client: httpx.Client, method: str, path: str, body: object = None, status: int = 200
) -> dict[str, Any]:
    answer = client.request(method, f"/v1/adapters/mood{path}", json=body)
    assert answer.status_code == status, answer.text
    document: dict[str, Any] = answer.json()
    return document


def events(client: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/adapters/mood/events").json()["events"]
    return found


def test_a_version_with_wrong_labels_is_rolled_back_by_its_rule(
    observed: ObservedServer, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    publish(client, peft_saved["first"], "a,b,c")
    right = predictions(observed.ask(client))
    change(client, "PUT", "/rollback-rule", RULE)
    publish(client, peft_saved["first"], "b,c,a")
    assert all(answer["version"] == 2 for answer in observed.ask(client))
    observed.judge()
    assert change(client, "GET", "")["live"] == 1
    assert predictions(observed.ask(client)) == right
    event = events(client)[0]
    assert (event["what"], event["version"], event["alias"], event["who"]) == ("rolled_back", 1, "live", "rule")
    assert event["detail"] == {
        "before": 2,
        "after": 1,
        "reason": "max_disagreement",
        "measured": 1.0,
        "limit": 0.2,
        "requests": 10,
        "incumbent": 1,
    }
    assert value(client, "rollbacks_total", stage="live") == 1
    observed.judge()
    assert change(client, "GET", "")["live"] == 1


def test_a_rule_that_rolls_back_tells_the_webhook_why(
    new_home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, peft_saved: dict[str, PeftAdapter]
) -> None:
    monkeypatch.setattr(rollout_watcher, "INTERVAL_S", 3600)
    with webhook_target() as target:
        server = ObservedServer(new_home(), webhook_urls=target.url, webhook_secret=SECRET)
        with run_server(server.settings, server.open) as server.running, server.running.client() as client:
            publish(client, peft_saved["first"], "a,b,c")
            change(client, "PUT", "/rollback-rule", RULE)
            publish(client, peft_saved["first"], "b,c,a")
            server.ask(client)
            server.judge()
            told = target.wait(6)[-1]
    document = Webhook(SECRET).verify(told.body, dict(told.headers))
    assert document["type"] == "adapter.rolled_back"
    assert (document["data"]["version"], document["data"]["who"]) == (1, "rule")
    assert document["data"]["detail"]["reason"] == "max_disagreement"


def test_a_version_that_answers_alike_stays_live(
    observed: ObservedServer, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    publish(client, peft_saved["first"], "a,b,c")
    change(client, "PUT", "/rollback-rule", RULE)
    # Another file with the same answers.
    publish(client, peft_saved["first"], "a,b,c", max_length="64")
    observed.ask(client)
    observed.judge()
    assert change(client, "GET", "")["live"] == 2
    assert value(client, "shadow_requests_total", result="agreed") == 10


def test_a_shadow_answers_nobody_and_changes_no_answer(
    observed: ObservedServer, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    publish(client, peft_saved["first"], "a,b,c")
    publish(client, peft_saved["first"], "b,c,a", activate="false")
    before = predictions(observed.ask(client))
    counted = value(client, "latency_seconds_count", adapter="mood", stage="total")
    set_to = change(client, "PUT", "/shadow", {"version": 2, "percent": 100})
    assert set_to == {"name": "mood", "shadow": {"version": 2, "percent": 100.0}}
    during = observed.ask(client)
    observed.judge()
    assert predictions(during) == before
    assert {answer["version"] for answer in during} == {1}
    assert value(client, "shadow_requests_total", result="differed") == 10
    assert value(client, "latency_seconds_count", adapter="mood", stage="total") == counted + 10
    assert change(client, "GET", "")["shadow"] == {"version": 2, "percent": 100.0}
    assert change(client, "DELETE", "/shadow") == {"name": "mood", "shadow": None}
    observed.ask(client)
    observed.judge()
    assert value(client, "shadow_requests_total") == 10


def test_a_shadow_that_breaks_the_rule_ends_and_live_stays(
    observed: ObservedServer, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    publish(client, peft_saved["first"], "a,b,c")
    publish(client, peft_saved["first"], "b,c,a", activate="false")
    change(client, "PUT", "/rollback-rule", RULE)
    change(client, "PUT", "/shadow", {"version": 2, "percent": 100})
    observed.ask(client)
    observed.judge()
    shown = change(client, "GET", "")
    assert (shown["live"], shown["shadow"]) == (1, None)
    event = events(client)[0]
    assert (event["what"], event["version"], event["who"]) == ("shadow_ended", 2, "rule")
    assert event["detail"]["before"] == {"version": 2, "percent": 100.0}
    assert (event["detail"]["reason"], event["detail"]["requests"]) == ("max_disagreement", 10)


def test_a_candidate_that_breaks_the_rule_loses_its_split(
    observed: ObservedServer, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    publish(client, peft_saved["first"], "a,b,c")
    right = predictions(observed.ask(client))
    publish(client, peft_saved["first"], "b,c,a", activate="false")
    change(client, "PUT", "/rollback-rule", RULE)
    change(client, "PUT", "/aliases/live/split", {"candidates": {"2": 100}})
    assert {answer["version"] for answer in observed.ask(client)} == {2}
    observed.judge()
    assert predictions(observed.ask(client)) == right
    event = events(client)[0]
    assert (event["what"], event["version"], event["alias"], event["who"]) == ("split_ended", 1, "live", "rule")
    told = event["detail"]
    assert (told["candidate"], told["before"], told["after"]) == (2, {"2": 100.0}, {})
    assert (told["reason"], told["measured"], told["limit"]) == ("max_disagreement", 1.0, 0.2)


def test_requests_for_a_version_by_its_number_or_digest_are_not_shadowed(
    observed: ObservedServer, client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    publish(client, peft_saved["first"], "a,b,c")
    publish(client, peft_saved["first"], "b,c,a", activate="false")
    change(client, "PUT", "/shadow", {"version": 2, "percent": 100})
    digest = change(client, "GET", "")["versions"][0]["digest"]
    observed.ask(client, "mood@1", 2)
    observed.ask(client, f"mood@{digest}", 2)
    observed.judge()
    assert value(client, "shadow_requests_total") == 0
    observed.ask(client, "mood@live", 2)
    observed.judge()
    assert value(client, "shadow_requests_total") == 2


def test_the_rule_of_one_tenant_does_not_act_on_another_s_adapter_of_the_same_name(
    observed: ObservedServer, peft_saved: dict[str, PeftAdapter]
) -> None:
    with client_of(observed.running, "acme") as acme, client_of(observed.running, "beta") as beta:
        for client in (acme, beta):
            publish(client, peft_saved["first"], "a,b,c")
        change(acme, "PUT", "/rollback-rule", RULE)
        for client in (acme, beta):
            publish(client, peft_saved["first"], "b,c,a")
            observed.ask(client)
        observed.judge()
        assert change(acme, "GET", "")["live"] == 1
        assert change(beta, "GET", "")["live"] == 2
        assert change(beta, "GET", "")["rule"] is None
        assert [event["what"] for event in events(beta)] == ["alias_set", "published"] * 2


def test_shadows_are_charged_to_no_quota(
    observed: ObservedServer, peft_saved: dict[str, PeftAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: list[int] = []
    monkeypatch.setattr(observed._server.quotas, "spend", lambda principal, tokens: charged.append(tokens))
    with observed.running.client() as client:
        publish(client, peft_saved["first"], "a,b,c")
        publish(client, peft_saved["first"], "b,c,a", activate="false")
        change(client, "PUT", "/shadow", {"version": 2, "percent": 100})
        answers = observed.ask(client)
        observed.judge()
        assert value(client, "shadow_requests_total", result="differed") == 10
    assert charged == [answer["usage"]["prompt_tokens"] for answer in answers]
