"""A full disk, SIGTERM under load and SIGKILL: `rootstock serve` as a process, and what a restart finds."""

from __future__ import annotations

import json
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.bounds import HANG
from tests.faults.clients import REFUSED, Clients, ask
from tests.faults.conftest import State
from tests.live_server import upload
from tests.marks import slow_except
from tests.peft_adapters import PeftAdapter
from tests.serve_process import serving

MODELS = ("review-sentiment", "support-intents")
LARGEST = 128 * 1024
SERVERS = pytest.mark.parametrize("server", slow_except(["uvicorn"], ["bentoml", "uvicorn"]))


def publish(client: httpx.Client, name: str, adapter: PeftAdapter, **fields: str) -> httpx.Response:
    return upload(client, name, adapter.zip(), **fields)


def test_an_upload_onto_a_full_disk_changes_nothing_and_the_server_serves_on(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter], state: State
) -> None:
    home = new_home()
    with serving(home, "uvicorn", log=[]) as (process, client):
        before = client.get("/v1/adapters").json()
        # No file may grow further than this: what a full disk does to a write, it does as well, for any user.
        most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LARGEST, most[1]))
        with Clients(str(client.base_url), MODELS) as clients:
            stored = publish(client, "large", peft_saved["first"])
            received = publish(client, "large", peft_saved["second"])
            clients.more(20)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, most)
            began = time.monotonic()
            again = publish(client, "large", peft_saved["second"])
            seconds = time.monotonic() - began
        after = client.get("/v1/adapters").json()
    # One does not fit into the store, the other is so large that it is received into a file.
    for refused in (stored, received):
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "store_full")
    assert again.status_code == 201
    assert {a["name"] for a in after["adapters"]} - {a["name"] for a in before["adapters"]} == {"large"}
    assert not clients.failed
    assert not list((home / "store").glob("*/.writing-*"))
    state("disk full", "the upload: 507", seconds)


@SERVERS
def test_a_stop_under_load_loses_no_request_that_was_admitted(
    new_home: Callable[[], Path], server: str, state: State
) -> None:
    log: list[str] = []
    with (
        serving(new_home(), server, log=log, ROOTSTOCK_LOG_LEVEL="debug") as (process, client),
        Clients(str(client.base_url), MODELS, count=16) as clients,
    ):
        clients.more(50)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) in (0, -signal.SIGTERM)
        seconds = time.monotonic() - began
    # A client is told to go elsewhere, or finds nobody; what was admitted is answered, and rightly.
    assert {(r.status, r.code) for r in clients.failed} <= {(503, "draining"), (REFUSED, None)}
    seen = {json.loads(line).get("request_id") for line in log if line.startswith("{")}
    assert len(seen) >= 50
    # The system resets requests that come in as the listener closes, and the server never sees them.
    assert not clients.broken & seen
    state(f"SIGTERM under load, {server}", "nothing that was admitted", seconds)


def test_a_killed_server_comes_back_with_every_version_that_it_had_acknowledged(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter], state: State
) -> None:
    home = new_home()
    acknowledged: dict[int, str] = {}
    enough = threading.Event()

    def publish_on(url: str) -> None:
        with httpx.Client(base_url=url, timeout=HANG) as client:
            for i in range(1000):
                labels = f'["a{i}", "b", "c"]'
                try:
                    answer = publish(client, "churned", peft_saved["first"], labels=labels)
                except httpx.TransportError:
                    return
                acknowledged[answer.json()["version"]] = answer.json()["digest"]
                if len(acknowledged) == 5:
                    enough.set()

    with serving(home, "uvicorn", log=[]) as (process, client):
        publisher = threading.Thread(target=publish_on, args=(str(client.base_url),))
        with Clients(str(client.base_url), MODELS) as clients:
            publisher.start()
            assert enough.wait(HANG)
            killed = time.monotonic()
            process.kill()
            process.wait()
        publisher.join(HANG)
    asked = len(clients.replies) + len(clients.broken)
    assert asked
    with serving(home, "uvicorn") as (_, client):
        again = ask(client, "churned", "ok")
        seconds = time.monotonic() - killed
        versions = client.get("/v1/adapters/churned").json()["versions"]
        digests = {one["version"]: one["digest"] for one in versions}
        for number, digest in acknowledged.items():
            assert digests[number] == digest
            assert client.get(f"/v1/adapters/churned/versions/{number}/bundle").status_code == 200
        # One more may have been written whose answer was on its way.
        assert len(digests) - len(acknowledged) in (0, 1)
        assert again.status_code == 200
        assert not list((home / "store").glob("*/.writing-*"))
    state("SIGKILL and restart", "requests in flight; no version that was acknowledged", seconds)
