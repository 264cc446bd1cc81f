"""Over HTTP, a deleted version is listed, comes back whole, or is purged; retention follows publications."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from rootstock.service.settings import Settings
from tests.bounds import HANG
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter


@pytest.fixture(scope="module")
def server(new_home: Callable[[], Path]) -> Iterator[RunningServer]:
    with run_server(Settings(home=new_home(), demo=False, log_level="error", keep_versions=3)) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        for adapter in client.get("/v1/adapters").json()["adapters"]:
            client.delete(f"/v1/adapters/{adapter['name']}?purge=true")
        client.delete("/v1/adapters/mood?purge=true")
        yield client


def publish(client: httpx.Client, saved: PeftAdapter, mark: str) -> int:
    """Publish a version of `mood` whose labels begin with a mark; return its number."""
    answer = upload(client, "mood", saved.zip(), labels=json.dumps([f"{mark}-{i}" for i in range(3)]))
    assert answer.status_code == 201, answer.text
    number: int = answer.json()["version"]
    return number


def answered(client: httpx.Client, model: str) -> str:
    """Return the mark of the version that answers under a reference, or the code of the error."""
    answer = client.post("/v1/predict", json={"model": model, "inputs": "x"}).json()
    if "error" in answer:
        return str(answer["error"]["code"])
    return str(answer["predictions"][0]["label"]).partition("-")[0]


def deleted(client: httpx.Client) -> dict[int, dict[str, Any]]:
    listed = client.get("/v1/adapters/mood/deleted").json()["versions"]
    return {one["version"]: one for one in listed}


def test_a_deleted_version_is_listed_until_it_comes_back_with_its_aliases_and_answers_as_before(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    first = publish(client, peft_saved["first"], "first")
    client.put("/v1/adapters/mood/aliases/prod", json={"version": first})
    before = client.get(f"/v1/adapters/mood/versions/{first}").json()
    assert client.delete(f"/v1/adapters/mood/versions/{first}?force=true").status_code == 204
    for model in ("mood", f"mood@{first}", "mood@prod", f"mood@{before['digest']}"):
        assert answered(client, model) in ("unknown_version", "no_live_version", "unknown_alias"), model
    gone = deleted(client)[first]
    assert (gone["digest"], gone["aliases"]) == (before["digest"], ["live", "prod"])
    times = [datetime.fromisoformat(gone[when]) for when in ("deleted_at", "purged_at")]
    assert times[1] - times[0] == timedelta(days=7)
    back = client.post(f"/v1/adapters/mood/versions/{first}/undelete")
    assert back.json() == {"name": "mood", "versions": [first], "aliases": {"live": first, "prod": first}}
    assert deleted(client) == {}
    assert [answered(client, f"mood@{alias}") for alias in ("live", "prod")] == ["first", "first"]
    after = client.get(f"/v1/adapters/mood/versions/{first}").json()
    assert {**after, "residency": ""} == {**before, "residency": ""}
    events = client.get("/v1/adapters/mood/events?limit=4").json()["events"]
    assert [(one["what"], one["alias"]) for one in events] == [
        ("alias_set", "prod"),
        ("alias_set", "live"),
        ("version_restored", None),
        ("version_deleted", None),
    ]
    assert events[-1]["detail"]["restorable"] is True


def test_an_alias_that_has_moved_on_stays_where_it_is(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    first = publish(client, peft_saved["first"], "first")
    client.delete(f"/v1/adapters/mood/versions/{first}?force=true")
    second = publish(client, peft_saved["first"], "second")
    back = client.post(f"/v1/adapters/mood/versions/{first}/undelete").json()
    assert (back["aliases"], answered(client, "mood"), answered(client, f"mood@{first}")) == (
        {},
        "second",
        "first",
    )
    assert second == first + 1


def test_a_deleted_adapter_comes_back_whole(client: httpx.Client, peft_saved: dict[str, PeftAdapter]) -> None:
    numbers = [publish(client, peft_saved["first"], mark) for mark in ("one", "two", "three")]
    client.delete(f"/v1/adapters/mood/versions/{numbers[0]}")
    assert client.delete("/v1/adapters/mood").status_code == 204
    assert client.get("/v1/adapters/mood").status_code == 404
    assert list(deleted(client)) == numbers
    back = client.post("/v1/adapters/mood/undelete").json()
    assert (back["versions"], back["aliases"]) == (numbers[1:], {"live": numbers[2]})
    assert answered(client, "mood") == "three"
    refused = client.post("/v1/adapters/mood/undelete")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_version")


def test_what_was_purged_was_published_again_or_never_was_does_not_come_back(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    first = publish(client, peft_saved["first"], "first")
    client.delete("/v1/adapters/mood")
    again = publish(client, peft_saved["first"], "first")
    refused = client.post(f"/v1/adapters/mood/versions/{first}/undelete")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "already_published")
    assert f"mood@{again}" in refused.json()["error"]["message"]
    assert client.delete(f"/v1/adapters/mood/versions/{first}?purge=true").status_code == 204
    for number in (first, again, 99):
        refused = client.post(f"/v1/adapters/mood/versions/{number}/undelete")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_version")
    for path in ("versions/1/undelete", "undelete", "deleted"):
        method = "GET" if path == "deleted" else "POST"
        refused = client.request(method, f"/v1/adapters/nobody/{path}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_adapter")
    assert answered(client, "mood") == "first"


def test_after_a_publication_the_versions_that_nothing_needs_are_deleted_and_can_come_back(
    client: httpx.Client, peft_saved: dict[str, PeftAdapter]
) -> None:
    numbers = [publish(client, peft_saved["first"], mark) for mark in ("one", "two")]
    client.put("/v1/adapters/mood/aliases/prod", json={"version": numbers[0]})
    numbers += [publish(client, peft_saved["first"], mark) for mark in ("three", "four", "five")]
    deadline = time.monotonic() + HANG
    while list(deleted(client)) != numbers[1:2]:
        assert time.monotonic() < deadline
    kept = [one["version"] for one in client.get("/v1/adapters/mood").json()["versions"]]
    assert kept == [numbers[0], *numbers[2:]]
    events = client.get("/v1/adapters/mood/events?limit=1").json()["events"]
    assert [(one["what"], one["version"], one["who"]) for one in events] == [
        ("version_deleted", numbers[1], "retention")
    ]
    assert client.post(f"/v1/adapters/mood/versions/{numbers[1]}/undelete").status_code == 200
    assert answered(client, f"mood@{numbers[1]}") == "two"
