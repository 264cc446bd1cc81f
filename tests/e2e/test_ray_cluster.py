"""Replicas on a real Ray: every answer right while replicas die, adapters come and aliases move.

Run with -s to see the figures.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from rootstock.service.telemetry.snapshot import MetricsSnapshot
from tests.bounds import HANG
from tests.e2e.ray_cluster import RayCluster, ray_cluster
from tests.e2e.replicas import AliasHistory, Heard
from tests.live_server import upload
from tests.object_storage import ObjectStorage
from tests.peft_adapters import PeftAdapter
from tests.postgres_process import PostgresProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ADAPTERS = 200
SLOTS = 64
SECONDS = 120
KILL_EVERY = 10
WITHIN = 2.0
SMALL = ("--cpus", "0.1")
ADMIN = "an-admin-key-of-this-test"


@pytest.fixture(scope="module")
def cluster(new_home: Callable[[], Path], postgres: PostgresProcess, s3: ObjectStorage) -> Iterator[RayCluster]:
    with ray_cluster(new_home, postgres, s3) as opened:
        yield opened


@pytest.fixture(scope="module")
def adapters(cluster: RayCluster, peft_saved: dict[str, PeftAdapter]) -> list[str]:
    """Deploy four replicas and publish the adapters; the first label of each states its name and version."""
    cluster.deploy("--replicas", "4", *SMALL, ROOTSTOCK_SLOTS=str(SLOTS))
    names = [f"adapter-{i}" for i in range(ADAPTERS)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: publish(cluster.client, name, 1, peft_saved["first"]), names))
    return names


def publish(client: httpx.Client, name: str, version: int, adapter: PeftAdapter) -> None:
    answer = upload(client, name, adapter.zip(), labels=f'["{name} {version}", "b", "c"]')
    assert answer.status_code == 201, answer.text
    assert answer.json()["version"] == version


def ask(client: httpx.Client, model: str, text: str = "Where is my parcel?") -> httpx.Response:
    body = {"model": model, "inputs": text, "parameters": {"top_k": None}}
    return client.post("/v1/predict", json=body)


def mark_of(answer: httpx.Response) -> str:
    (mark,) = {one["label"] for one in answer.json()["predictions"][0]} - {"b", "c"}
    return str(mark)


def loads(cluster: RayCluster) -> dict[str, float]:
    page = MetricsSnapshot(cluster.client.get("/metrics").text, 0.0)
    return {tier: page.sum("loads_total", tier=tier, result="ok") for tier in ("memory", "slot")}


def until(true: Callable[[], bool], seconds: float = HANG) -> float:
    """Wait until something is true, and return how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def cold_loads(cluster: RayCluster, names: list[str], requests: int = 1500) -> float:
    """Return the loads into slots for each request, once the replicas have seen every adapter."""
    with ThreadPoolExecutor(8) as pool:
        for name, status in pool.map(lambda name: (name, ask(cluster.client, name).status_code), names * 2):
            assert status == 200, name
        before = loads(cluster)
        dice = random.Random(55)
        chosen = [dice.choice(names) for _ in range(requests)]
        for answer, name in zip(pool.map(lambda name: ask(cluster.client, name), chosen), chosen, strict=True):
            assert mark_of(answer).partition(" ")[0] == name
    after = loads(cluster)
    print({tier: (after[tier] - before[tier]) / requests for tier in after})
    return (after["slot"] - before["slot"]) / requests


class PatientHistory(AliasHistory):
    """When an alias was moved, where a replica that dies may lose the move, which is then made again."""

    def move(self, client: httpx.Client, name: str, alias: str, version: int) -> None:
        began = time.monotonic()
        while True:
            answer = client.put(f"/v1/adapters/{name}/aliases/{alias}", json={"version": version})
            if answer.status_code == 200:
                break
            assert answer.json()["error"]["code"] == "replica_lost", answer.text
        self._moves.append((began, time.monotonic(), version))


class Traffic:
    """Threads that ask for random adapters until the block ends, and check each answer."""

    def __init__(
        self,
        cluster: RayCluster,
        names: list[str],
        history: dict[str, AliasHistory],
        threads: int = 4,
        text: str = "Where is my parcel?",
    ) -> None:
        self._url = str(cluster.client.base_url)
        self._names = names
        self._history = history
        self._text = text
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(threads)]
        self.right = 0
        self.wrong: list[str] = []
        self.failed: Counter[str] = Counter()

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(HANG)

    def _ask(self, seed: int) -> None:
        dice = random.Random(seed)
        with httpx.Client(base_url=self._url, timeout=HANG) as client:
            while not self._stopping.is_set():
                name = dice.choice(self._names)
                sent = time.monotonic()
                try:
                    answer = ask(client, name, self._text)
                except httpx.TransportError as error:
                    self.failed[type(error).__name__] += 1
                    continue
                if answer.status_code != 200:
                    self.failed[f"{answer.status_code} {answer.text[:200]}"] += 1
                    continue
                version = answer.json()["version"]
                history = self._history.get(name)
                lag = history.lag(Heard(sent, time.monotonic(), 200, version)) if history else 0.0
                if mark_of(answer) != f"{name} {version}" or lag > WITHIN:
                    self.wrong.append(f"{name}: {mark_of(answer)}, {version}, left {lag:.2f} s before")
                self.right += 1


def test_a_chosen_replica_holds_the_adapter_where_a_random_one_loads_it(
    cluster: RayCluster, adapters: list[str]
) -> None:
    with_affinity = cold_loads(cluster, adapters)
    cluster.deploy("--replicas", "4", *SMALL, "--routing", "random", ROOTSTOCK_SLOTS=str(SLOTS))
    at_random = cold_loads(cluster, adapters)
    cluster.deploy("--replicas", "4", *SMALL, ROOTSTOCK_SLOTS=str(SLOTS))
    print(
        f"\nloads into slots a request, 4 replicas with {SLOTS} slots, {ADAPTERS} adapters: with affinity "
        f"{with_affinity:.3f}, at random {at_random:.3f}, ratio {with_affinity / at_random:.3f}"
    )
    assert with_affinity / at_random <= 0.25


@pytest.mark.parametrize("replicas", [4, 2])
def test_while_replicas_die_adapters_come_and_aliases_move_every_answer_is_right(
    cluster: RayCluster, adapters: list[str], replicas: int, peft_saved: dict[str, PeftAdapter]
) -> None:
    cluster.deploy("--replicas", str(replicas), *SMALL, ROOTSTOCK_SLOTS=str(SLOTS))
    until(lambda: len(cluster.replicas) == replicas)
    moved = [f"moved-{replicas}-{i}" for i in range(3)]
    for name in moved:
        for version in (1, 2):
            publish(cluster.client, name, version, peft_saved["first"])
    history: dict[str, AliasHistory] = {name: PatientHistory(2) for name in moved}
    dice = random.Random(replicas)
    changes: Counter[str] = Counter()
    killed = 0
    began = time.monotonic()
    with Traffic(cluster, adapters + moved * 10, history) as traffic:
        for turn in range(SECONDS):
            time.sleep(max(0.0, began + turn - time.monotonic()))
            if turn % KILL_EVERY == KILL_EVERY // 2:
                found = cluster.replicas
                # The last one that answers is not killed: on a busy machine new ones start late.
                if len(found) > 1:
                    with suppress(psutil.NoSuchProcess):
                        dice.choice(found).kill()
                        killed += 1
            if turn % 2:
                name = moved[turn % 3]
                history[name].move(cluster.client, name, "live", turn // 2 % 2 + 1)
                changes["moved"] += 1
                continue
            new = f"new-{replicas}-{turn}"
            answer = upload(cluster.client, new, peft_saved["first"].zip(), labels=f'["{new} 1", "b", "c"]')
            if answer.status_code == 201:
                assert mark_of(ask(cluster.client, new)) == f"{new} 1"
                changes["published"] += 1
            else:
                # A replica that dies in the middle of an upload may have published it.
                assert answer.json()["error"]["code"] == "replica_lost", answer.text
                changes["lost"] += 1
        done = time.monotonic() - began
    print(
        f"\n{replicas} replicas, {done:.0f} s, {killed} killed: {traffic.right} answers, wrong "
        f"{len(traffic.wrong)}, failed {dict(traffic.failed)}; changes {dict(changes)}"
    )
    assert traffic.right > 0
    assert traffic.wrong == []
    assert traffic.failed == {}
    assert killed >= replicas - 1


def test_an_update_of_all_replicas_loses_no_request(cluster: RayCluster, adapters: list[str]) -> None:
    before = {process.pid for process in cluster.replicas}
    with Traffic(cluster, adapters, {}) as traffic:
        cluster.deploy("--replicas", "2", *SMALL, ROOTSTOCK_SLOTS=str(SLOTS))
        until(lambda: len(cluster.replicas) == 2)
    print(f"\nrolling update: {traffic.right} answers, failed {dict(traffic.failed)}")
    assert before.isdisjoint(process.pid for process in cluster.replicas)
    assert traffic.failed == {}
    assert traffic.wrong == []


def test_every_replica_sees_a_moved_alias_a_revoked_key_and_a_spent_quota_within_two_seconds(
    cluster: RayCluster, adapters: list[str], peft_saved: dict[str, PeftAdapter]
) -> None:
    for version in (1, 2):
        publish(cluster.client, "seen", version, peft_saved["first"])
    keyed = {"ROOTSTOCK_SLOTS": str(SLOTS), "ROOTSTOCK_ADMIN_KEY": ADMIN}
    cluster.deploy("--replicas", "2", *SMALL, "--routing", "random", **keyed)
    client = cluster.client
    admin = {"Authorization": f"Bearer {ADMIN}"}

    def create(**quota: int) -> dict[str, str]:
        made = client.post("/v1/keys", json={"role": "predict", "tenant": "default", **quota}, headers=admin)
        assert made.status_code == 201, made.text
        return dict(made.json())

    def predict(key: str, model: str = "seen") -> httpx.Response:
        body = {"model": model, "inputs": "x", "parameters": {"top_k": None}}
        return client.post("/v1/predict", json=body, headers={"Authorization": f"Bearer {key}"})

    def each(check: Callable[[httpx.Response], bool], key: str) -> bool:
        """Ask until both replicas have answered, and tell whether all answers pass."""
        seen = set()
        for _ in range(200):
            answer = predict(key)
            seen.add(answer.headers["x-replica"])
            if not check(answer):
                return False
            if len(seen) == 2:
                return True
        raise AssertionError(f"only {seen} answered")

    plain = create()["key"]
    until(lambda: each(lambda answer: answer.status_code == 200, plain))
    lags = {}
    moved = client.put("/v1/adapters/seen/aliases/live", json={"version": 1}, headers=admin)
    assert moved.status_code == 200, moved.text
    lags["alias"] = until(lambda: each(lambda answer: answer.json().get("version") == 1, plain))
    doomed = create()
    until(lambda: each(lambda answer: answer.status_code == 200, doomed["key"]))
    assert client.delete(f"/v1/keys/{doomed['id']}", headers=admin).status_code == 204
    lags["key"] = until(lambda: each(lambda answer: answer.status_code == 401, doomed["key"]))
    poor = create(requests_per_minute=30)
    until(lambda: predict(poor["key"]).status_code == 200)
    until(lambda: predict(poor["key"]).status_code == 429)
    lags["quota"] = until(lambda: each(lambda answer: answer.status_code == 429, poor["key"]))
    print(f"\nseconds until both replicas follow: { {name: round(lag, 2) for name, lag in lags.items()} }")
    assert max(lags.values()) < WITHIN
