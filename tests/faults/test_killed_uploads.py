"""A server that is killed again and again in a storm of uploads loses no version and is whole each time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from rootstock.adapters.home.fsck import fsck
from rootstock.adapters.home.home import Home
from tests.bounds import HANG
from tests.live_server import upload
from tests.peft_adapters import PeftAdapter
from tests.serve_process import serving

KILLS = 50
UPLOADERS = 3
# Bytes of an upload that was killed, which the next start removes.
LEFT = {"orphan", "left-over"}


class Storm:
    """Threads that publish new versions, and delete some, until the server is killed.

    `kept` are the versions that a server has acknowledged and that nobody has asked to delete.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._count = 0
        self._lock = threading.Condition()
        self._seconds = 0.0
        self._threads: list[threading.Thread] = []
        self.kept: dict[tuple[str, int], str] = {}
        self.published = 0

    def begin(self, url: str) -> None:
        """Start the threads."""
        self._threads = [threading.Thread(target=self._run, args=(url, i)) for i in range(UPLOADERS)]
        for thread in self._threads:
            thread.start()

    def last(self, chance: random.Random) -> None:
        """Return at a random point of an upload, after one to three more were acknowledged."""
        with self._lock:
            wanted = self.published + chance.randint(1, 3)
            assert self._lock.wait_for(lambda: self.published >= wanted, HANG)
        time.sleep(chance.uniform(0, self._seconds))

    def end(self) -> None:
        """Wait for the threads, which end once the server is gone."""
        for thread in self._threads:
            thread.join(HANG)
            assert not thread.is_alive()

    def _run(self, url: str, number: int) -> None:
        name = f"stormed-{number}"
        with httpx.Client(base_url=url, timeout=HANG) as client:
            try:
                while True:
                    with self._lock:
                        self._count += 1
                        labels = f'["a{self._count}", "b", "c"]'
                    began = time.monotonic()
                    answer = upload(client, name, self._data, labels=labels)
                    assert answer.status_code == 201, answer.text
                    version, digest = answer.json()["version"], answer.json()["digest"]
                    with self._lock:
                        self._seconds = time.monotonic() - began
                        self.published += 1
                        self.kept[name, version] = digest
                        self._lock.notify_all()
                    if version % 4 == 0:
                        with self._lock:
                            self.kept.pop((name, version - 2), None)
                        client.delete(f"/v1/adapters/{name}/versions/{version - 2}")
            except httpx.TransportError:
                return


def findings(home: Home) -> list[str]:
    """Return the kinds of the findings of a check without a grace time."""
    with closing(home.registry_to_check()) as registry:
        check = fsck(registry, home.store_to_check(), grace=timedelta())
    return [finding.kind for finding in check.findings]


def storm(home: Home, data: bytes, kills: int, seed: int) -> tuple[Storm, list[str]]:
    """Kill a server at random points of a storm of uploads; return the storm and the kinds of what was left."""
    chance, storming = random.Random(seed), Storm(data)
    left: list[str] = []
    for _ in range(kills):
        with serving(home.folder, "uvicorn", log=[], ROOTSTOCK_DEMO="false") as (process, client):
            assert findings(home) == [], "the start made the home whole"
            with closing(home.registry_to_check()) as registry:
                present = {(one.name, one.version): one.digest for one in registry.index()}
            assert {one: present.get(one) for one in storming.kept} == storming.kept
            storming.begin(str(client.base_url))
            storming.last(chance)
            process.kill()
            process.wait()
            storming.end()
        found = findings(home)
        assert set(found) <= LEFT
        left += found
    return storming, left


@pytest.mark.slow
def test_a_server_killed_at_fifty_points_of_an_upload_storm_loses_no_version_and_is_whole_each_time(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    home = Home(new_home())
    storming, left = storm(home, peft_saved["first"].zip(), KILLS, seed=17)
    assert storming.published >= KILLS
    with serving(home.folder, "uvicorn", log=[]) as (_, client):
        assert findings(home) == []
        for name, version in storming.kept:
            answer = client.get(f"/v1/adapters/{name}/versions/{version}/bundle")
            assert answer.status_code == 200
            assert answer.headers["etag"] == f'"{storming.kept[name, version]}"'
    print(
        f"{KILLS} kills, {storming.published} versions published, {len(storming.kept)} kept, 0 lost; "
        f"left by the killed servers and removed at the next start: {len(left)} {sorted(set(left))}"
    )
