"""Faults in the runner, the store and the clock, through a real server: what they cost, and who."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from safetensors.numpy import load_file, save_file

from rootstock.adapters.bundle import Limits
from rootstock.adapters.home.bulk_import import import_bundles
from rootstock.adapters.spec import FoundationSpec
from rootstock.adapters.store.folder import FolderStore
from rootstock.service.app import OpenServer
from tests.bounds import HANG
from tests.faults.clients import Clients, ask
from tests.faults.conftest import Faulty, State
from tests.live_server import RunningServer, upload
from tests.peft_adapters import PeftAdapter

MODELS = ("first", "second")
BATCH_ROWS = 32


@pytest.fixture
def running(
    serve: Callable[..., RunningServer], opened: OpenServer, peft_saved: dict[str, PeftAdapter]
) -> RunningServer:
    """A server with two adapters, whose runner can be made to fail."""
    running = serve(opened, request_timeout=HANG)
    with running.client() as client:
        for name in MODELS:
            assert upload(client, name, peft_saved[name].zip()).status_code == 201
    return running


def test_a_runner_that_is_out_of_memory_loses_the_batch_it_was_in_and_no_other(
    running: RunningServer, runners: list[Faulty], state: State
) -> None:
    with Clients(running.url, MODELS) as clients, running.client() as client:
        clients.more(20)
        began = time.monotonic()
        runners[0].fault = MemoryError("cannot allocate 40 MB")
        clients.more(40)
        assert client.get("/readyz").status_code == 200
    assert {(reply.status, reply.code) for reply in clients.failed} == {(500, "runner_fault")}
    assert not clients.broken
    assert 1 <= len(clients.failed) <= BATCH_ROWS
    lost = f"the requests of its batch ({len(clients.failed)} here): 500"
    state("runner out of memory in a batch", lost, clients.recovered_after(began))


def test_an_adapter_whose_outputs_are_not_numbers_fails_for_itself_alone(
    new_home: Callable[[], Path],
    serve: Callable[..., RunningServer],
    peft_saved: dict[str, PeftAdapter],
    spec: FoundationSpec,
    tmp_path: Path,
    state: State,
) -> None:
    home, folder = new_home(), tmp_path / "import" / "broken"
    folder.mkdir(parents=True)
    for path in peft_saved["first"].folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "adapter_model.safetensors")
    # Each number is finite, as verification asks; what they come to is not.
    save_file({n: t * 1e30 for n, t in weights.items()}, folder / "adapter_model.safetensors")
    # An import does not replay: so such an adapter comes past verification.
    (done,) = import_bundles([folder], home, spec, Limits())
    assert done.name == "broken"
    running = serve(home=home)
    with running.client() as client:
        for name in MODELS:
            assert upload(client, name, peft_saved[name].zip()).status_code == 201
        with Clients(running.url, MODELS) as clients:
            clients.more(5)
            answers = [ask(client, "broken", "Where is my parcel?") for _ in range(10)]
            clients.more(20)
    assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(500, "runner_fault")}
    assert "not finite" in answers[0].json()["error"]["message"]
    assert not clients.failed
    assert not clients.broken
    state("an adapter whose outputs are NaN", "its own requests alone: 500", 0.0)


def test_an_engine_whose_thread_has_ended_answers_all_who_wait_and_asks_to_be_restarted(
    running: RunningServer, runners: list[Faulty], state: State
) -> None:
    with Clients(running.url, MODELS) as clients, running.client() as client:
        clients.more(20)
        began = time.monotonic()
        runners[0].fault = SystemExit("the runner's thread is gone")
        clients.more(40)
        clients.stop()
        alive, ready = client.get("/livez"), client.get("/readyz")
        late = ask(client, "first", "ok")
    assert {(r.status, r.code) for r in clients.failed} == {(500, "runner_fault"), (503, "draining")}
    assert not clients.broken
    assert (alive.status_code, alive.json()["error"]["code"]) == (503, "engine_ended")
    assert (ready.status_code, late.status_code) == (503, 503)
    faults = [reply for reply in clients.failed if reply.status == 500]
    # Nobody waits for a timeout: the last who was admitted before the end knew within the time of a few batches.
    assert max(reply.at for reply in faults) - began < HANG / 4
    state(
        "runner's thread ended",
        f"the requests that had been admitted ({len(faults)} here): 500 at once; then 503, and /livez 503",
        max(reply.at for reply in faults) - began,
    )


def test_a_store_that_hangs_delays_the_adapters_that_it_holds_and_nothing_else(
    running: RunningServer,
    peft_saved: dict[str, PeftAdapter],
    monkeypatch: pytest.MonkeyPatch,
    state: State,
) -> None:
    opened = threading.Event()
    real = FolderStore.get

    def slow(store: FolderStore, digest: str) -> bytes:
        assert opened.wait(HANG)
        return real(store, digest)

    cold = [f"cold-{i}" for i in range(12)]
    with running.client() as client:
        # The same bytes under a label of their own: another digest each.
        for i, name in enumerate(cold):
            labels = f'["a{i}", "b", "c"]'
            assert upload(client, name, peft_saved["first"].zip(), labels=labels).status_code == 201
        server = running.app.state.server
        for name in cold:
            digest = server.registry.resolve(name).digest
            server.foundations.first.engine.cache.drop(digest)
            server.foundations.first.engine.batcher.drop(digest)
        monkeypatch.setattr(FolderStore, "get", slow)
        answers: dict[str, httpx.Response] = {}

        def wait_for(name: str) -> None:
            with running.client() as waiting:
                answers[name] = ask(waiting, name, "ok")

        threads = [threading.Thread(target=wait_for, args=(name,)) for name in cold]
        for thread in threads:
            thread.start()
        with Clients(running.url, MODELS) as clients:
            clients.more(30)
        assert client.get("/readyz").status_code == 200
        timed = client.post("/v1/predict", json={"model": "cold-0", "inputs": "ok", "timeout": 0.05})
        assert (timed.status_code, timed.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert not answers
        began = time.monotonic()
        opened.set()
        for thread in threads:
            thread.join(HANG)
    assert {answer.status_code for answer in answers.values()} == {200}
    assert not clients.failed
    state(
        "store hangs",
        "nothing; cold adapters wait for it, at most until their timeout: 504",
        time.monotonic() - began,
    )


def test_a_store_that_is_gone_fails_cold_adapters_until_it_is_back(
    new_home: Callable[[], Path],
    serve: Callable[..., RunningServer],
    peft_saved: dict[str, PeftAdapter],
    state: State,
) -> None:
    home = new_home()
    running = serve(home=home)
    with running.client() as client:
        for name in (*MODELS, "cold"):
            assert upload(client, name, peft_saved["tokens" if name == "cold" else name].zip()).status_code == 201
        server = running.app.state.server
        digest = server.registry.resolve("cold").digest
        with Clients(running.url, MODELS) as clients:
            server.foundations.first.engine.cache.drop(digest)
            server.foundations.first.engine.batcher.drop(digest)
            (home / "store").rename(home / "elsewhere")
            gone = client.post("/v1/predict", json={"model": "cold", "inputs": "ok"})
            clients.more(20)
            (home / "elsewhere").rename(home / "store")
            began = time.monotonic()
            back = client.post("/v1/predict", json={"model": "cold", "inputs": "ok"})
            seconds = time.monotonic() - began
    assert (gone.status_code, gone.json()["error"]["code"]) == (500, "missing_bundle")
    assert back.status_code == 200
    assert not clients.failed
    state("store gone", "requests for adapters that are not in memory: 500", seconds)


@pytest.mark.parametrize("jump", [-86_400, 86_400], ids=["back", "forward"])
def test_a_clock_that_jumps_a_day_expires_no_request(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch, jump: int, state: State
) -> None:
    real = time.time
    with Clients(running.url, MODELS) as clients, running.client() as client:
        clients.more(10)
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        clients.more(30)
        assert client.get("/readyz").status_code == 200
    assert not clients.failed
    assert not clients.broken
    state(f"the clock jumps a day {'back' if jump < 0 else 'forward'}", "nothing", 0.0)
