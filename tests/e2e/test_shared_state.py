"""Two servers on one registry and store: what one publishes, moves or deletes, the other follows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.bounds import HANG
from tests.e2e.replicas import AliasHistory, Asking, replicas
from tests.live_server import upload
from tests.object_storage import ObjectStorage
from tests.peft_adapters import PeftAdapter
from tests.postgres_process import PASSWORD, PostgresProcess

# The most seconds between a move of an alias by one server and the first answer of another that follows it.
WITHIN = 2.0


@pytest.fixture(scope="module")
def servers(
    new_home: Callable[[], Path], postgres: PostgresProcess, s3: ObjectStorage
) -> Iterator[list[httpx.Client]]:
    with replicas(2, new_home, postgres, s3) as clients:
        yield clients


def publish(client: httpx.Client, name: str, adapter: PeftAdapter, mark: object) -> httpx.Response:
    """Upload an adapter whose first label is a mark, so that each mark has another digest."""
    return upload(client, name, adapter.zip(), labels=f'["{mark}", "b", "c"]')


def answered(client: httpx.Client, model: str) -> tuple[int, str]:
    answer = client.post("/v1/predict", json={"model": model, "inputs": "ok", "parameters": {"top_k": None}})
    assert answer.status_code == 200, answer.text
    labels = {prediction["label"] for prediction in answer.json()["predictions"][0]}
    return answer.json()["version"], (labels - {"b", "c"}).pop()


def test_what_one_server_publishes_the_other_serves_and_an_alias_moves_on_both(
    servers: list[httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, second = servers
    for mark in ("one", "two"):
        assert publish(first, "moved", peft_saved["first"], mark).status_code == 201
    assert [answered(server, "moved") for server in servers] == [(2, "two")] * 2
    for turn, (mover, follower) in enumerate([(first, second), (second, first)] * 2):
        version = turn % 2 + 1
        mover.put("/v1/adapters/moved/aliases/live", json={"version": version}).raise_for_status()
        moved = time.monotonic()
        assert answered(mover, "moved")[0] == version, "the server that moves it follows at once"
        while True:
            asked = time.monotonic()
            if answered(follower, "moved")[0] == version:
                break
        assert asked - moved < WITHIN


def test_a_split_that_one_server_sets_sends_a_key_to_the_same_version_on_both(
    servers: list[httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, second = servers
    for mark in ("one", "two"):
        assert publish(first, "split", peft_saved["first"], mark).status_code == 201
    path = "/v1/adapters/split/aliases/live/split"

    def under(server: httpx.Client, key: str) -> str:
        answer = server.post(
            "/v1/predict", json={"model": "split", "inputs": "ok"}, headers={"X-Request-Key": key}
        )
        assert answer.status_code == 200, answer.text
        return answer.headers.get("X-Model-Version", "no split")

    assert under(second, "0") == "no split"
    assert first.put(path, json={"candidates": {"1": 50}}).is_success
    until(lambda: under(second, "0") != "no split")
    versions = [[under(server, str(key)) for key in range(40)] for server in servers]
    assert versions[0] == versions[1]
    assert set(versions[0]) == {"1", "2"}
    assert second.delete(path).is_success
    until(lambda: under(first, "0") == "no split")


def test_versions_that_two_servers_publish_at_once_get_numbers_of_their_own_and_are_served_by_both(
    servers: list[httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    marks = [f"m{i}" for i in range(6)]

    def publish_one(number: int) -> tuple[int, str]:
        done = publish(servers[number % 2], "at-once", peft_saved["first"], marks[number])
        assert done.status_code == 201, done.text
        return done.json()["version"], marks[number]

    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(publish_one, range(len(marks))))
    assert sorted(version for version, _ in published) == list(range(1, len(marks) + 1))
    for version, mark in published:
        for server in servers:
            assert answered(server, f"at-once@{version}") == (version, mark)


def test_a_version_that_one_server_deletes_is_unknown_to_the_other_and_may_be_published_there_again(
    servers: list[httpx.Client], peft_saved: dict[str, PeftAdapter]
) -> None:
    first, second = servers
    assert publish(first, "deleted", peft_saved["first"], "mark").status_code == 201
    assert answered(second, "deleted") == (1, "mark")
    assert first.delete("/v1/adapters/deleted").is_success
    deadline = time.monotonic() + HANG
    while second.post("/v1/predict", json={"model": "deleted", "inputs": "x"}).status_code != 404:
        assert time.monotonic() < deadline
    assert publish(second, "deleted", peft_saved["first"], "mark").status_code == 201
    assert [answered(server, "deleted") for server in servers] == [(2, "mark")] * 2


@pytest.mark.slow
def test_a_database_that_is_away_costs_no_adapter_in_memory_and_publishing_waits_for_it(
    servers: list[httpx.Client], peft_saved: dict[str, PeftAdapter], postgres: PostgresProcess
) -> None:
    for mark in ("one", "two"):
        assert publish(servers[0], "through", peft_saved["first"], mark).status_code == 201
    for server in servers:
        assert answered(server, "through") == (2, "two")
    with Asking(servers, "through", threads=1) as asking:
        postgres.kill()
        try:
            for server in servers:
                until(lambda server=server: server.get("/readyz").status_code == 503)  # type: ignore[misc]
                why = server.get("/readyz").json()["error"]
                assert why["code"] == "registry_unavailable"
                assert "the registry's database cannot be used" in why["message"]
                assert server.get("/readyz", params={"exclude": "registry"}).status_code == 200
                assert server.get("/livez").status_code == 200
                refused = publish(server, "through", peft_saved["first"], "three")
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "registry_unavailable")
                unseen = server.post("/v1/predict", json={"model": "through@1", "inputs": "x"})
                assert (unseen.status_code, unseen.json()["error"]["code"]) == (503, "registry_unavailable")
                for answer in (refused, unseen):
                    assert PASSWORD not in answer.text
        finally:
            postgres.start()
        for server in servers:
            until(lambda server=server: server.get("/readyz").status_code == 200)  # type: ignore[misc]
        assert publish(servers[1], "through", peft_saved["first"], "three").status_code == 201
    assert not asking.failed
    until(lambda: answered(servers[0], "through") == (3, "three"))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_for_a_minute_no_answer_comes_from_a_version_that_its_alias_had_left_two_seconds_before(
    new_home: Callable[[], Path], postgres: PostgresProcess, s3: ObjectStorage, peft_saved: dict[str, PeftAdapter]
) -> None:
    seconds = 60
    with replicas(2, new_home, postgres, s3) as servers:
        for mark in ("one", "two", "three"):
            assert publish(servers[0], "moved", peft_saved["first"], mark).status_code == 201
        history = AliasHistory(3)
        with Asking(servers, "moved@live") as asking:
            began = time.monotonic()
            for turn in range(seconds):
                time.sleep(max(0.0, began + turn + 1 - time.monotonic()))
                history.move(servers[turn % 2], "moved", "live", turn % 3 + 1)
    heard = [one for of_one in asking.heard for one in of_one]
    lags = sorted(history.lag(one) for one in heard if one.status == 200)
    late = sum(lag > WITHIN for lag in lags)
    print(
        f"\n{seconds} s, an alias moved every second, answers by server: {[len(one) for one in asking.heard]}, "
        f"failed: {len(asking.failed)}, from a version left more than {WITHIN:g} s before: {late}, "
        f"from one left before: {sum(lag > 0 for lag in lags)}, longest {lags[-1] * 1000:.1f} ms"
    )
    assert {one.version for one in heard} == {1, 2, 3}
    assert not asking.failed
    assert late == 0


@pytest.mark.slow
def test_a_postgresql_that_is_killed_under_load_loses_no_version_that_was_acknowledged(
    new_home: Callable[[], Path], postgres: PostgresProcess, s3: ObjectStorage, peft_saved: dict[str, PeftAdapter]
) -> None:
    kills, acknowledged, refused = 5, {}, []
    dice = random.Random(37)
    done = threading.Event()

    def publish_on(client: httpx.Client, number: int) -> None:
        with httpx.Client(base_url=client.base_url, timeout=HANG) as own:
            for turn in range(10_000):
                if done.is_set():
                    return
                answer = publish(own, "stored", peft_saved["first"], f"s{number}-{turn}")
                if answer.is_success:
                    acknowledged[answer.json()["version"]] = answer.json()["digest"]
                else:
                    refused.append((answer.status_code, answer.json()["error"]["code"]))

    with replicas(2, new_home, postgres, s3) as servers:
        assert publish(servers[0], "through", peft_saved["first"], "mark").status_code == 201
        for server in servers:
            answered(server, "through")
        publishers = [threading.Thread(target=publish_on, args=(one, i)) for i, one in enumerate(servers)]
        healed = []
        with Asking(servers, "through", threads=1) as asking:
            for thread in publishers:
                thread.start()
            for _ in range(kills):
                time.sleep(dice.uniform(1.0, 3.0))
                postgres.kill()
                time.sleep(dice.uniform(0.2, 1.5))
                postgres.start()
                began = time.monotonic()
                for server in servers:
                    until(lambda server=server: server.get("/readyz").status_code == 200)  # type: ignore[misc]
                healed.append(time.monotonic() - began)
            time.sleep(1)
            done.set()
            for thread in publishers:
                thread.join(HANG)
        for server in servers:
            listed = server.get("/v1/adapters/stored").json()["versions"]
            digests = {one["version"]: one["digest"] for one in listed}
            lost = {number for number, digest in acknowledged.items() if digests.get(number) != digest}
            assert not lost
        for number in acknowledged:
            assert servers[0].get(f"/v1/adapters/stored/versions/{number}/bundle").status_code == 200
    answers = sum(map(len, asking.heard))
    print(
        f"\n{kills} kills of PostgreSQL: {answers} answers, failed {len(asking.failed)}; versions acknowledged "
        f"{len(acknowledged)}, lost 0, recorded without an answer {len(digests) - len(acknowledged)}; "
        f"publications refused {len(refused)}: {set(refused)}; ready again after at most {max(healed):.2f} s"
    )
    assert acknowledged
    assert not asking.failed
    assert {status for status, _ in refused} <= {503}
