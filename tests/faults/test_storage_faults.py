"""Faults of the store and the registry: bit rot, a full disk, a lost registry, uploads that were killed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.home.home import Home
from rootstock.service.settings import Settings
from tests.faults.clients import Clients, ask
from tests.faults.conftest import State
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import PeftAdapter
from tests.serve_process import ROOTSTOCK, free_port, serving


def run(*words: object) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def forget(running: RunningServer, digest: str) -> None:
    """Take an adapter out of memory, so that the next request loads it."""
    engine = running.app.state.server.foundations.first.engine
    engine.cache.drop(digest)
    engine.batcher.drop(digest)


def test_bit_rot_is_named_at_the_load_and_costs_no_adapter_in_memory_anything(
    serve: Callable[..., RunningServer],
    new_home: Callable[[], Path],
    peft_saved: dict[str, PeftAdapter],
    state: State,
) -> None:
    home = new_home()
    running = serve(home=home)
    store = Home(home).store_to_check()
    with running.client() as client:
        digests = {n: upload(client, n, peft_saved[n].zip()).json()["digest"] for n in ("first", "second")}
        with Clients(running.url, ("first",)) as clients:
            for digest in digests.values():
                path = store.path(digest)
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 4
                path.write_bytes(data)
            forget(running, digests["second"])
            cold = ask(client, "second", "ok")
            clients.more(20)
            assert (cold.status_code, cold.json()["error"]["code"]) == (500, "corrupt_bundle")
            assert digests["second"] in cold.json()["error"]["message"]
            found = json.loads(run("fsck", "--home", home, "--json").stdout)["findings"]
            assert {(one["kind"], one["digest"]) for one in found} == {("wrong", d) for d in digests.values()}
            began = time.monotonic()
            assert upload(client, "second", peft_saved["second"].zip()).status_code == 200
            again = ask(client, "second", "ok")
            seconds = time.monotonic() - began
            clients.more(20)
    assert again.status_code == 200
    assert not clients.failed
    assert not clients.broken
    state("bit rot in the store", "requests for adapters that are not in memory: 500", seconds)


def test_a_disk_that_is_full_for_the_registry_refuses_the_change_and_the_server_serves_on(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    home = new_home()
    with serving(home, "uvicorn", log=[]) as (process, client):
        assert upload(client, "kept", peft_saved["second"].zip()).status_code == 201
        before = client.get("/v1/adapters").json()
        # The registry's log may grow no further, and the bundle is smaller than the log is.
        size = max((home / "registry.db-wal").stat().st_size, (home / "registry.db").stat().st_size)
        assert size > len(peft_saved["first"].zip())
        most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, most[1]))
        with Clients(str(client.base_url), ("kept",)) as clients:
            refused = [
                upload(client, "large", peft_saved["first"].zip()),
                client.put("/v1/adapters/kept/aliases/prod", json={"version": 1}),
                client.delete("/v1/adapters/kept"),
            ]
            clients.more(20)
            ready = client.get("/readyz")
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, most)
            again = upload(client, "large", peft_saved["first"].zip())
        after = client.get("/v1/adapters").json()
        check = json.loads(run("fsck", "--home", home, "--grace", 0, "--json").stdout)
    assert {(a.status_code, a.json()["error"]["code"]) for a in refused} == {(507, "store_full")}, refused
    assert not any(str(home) in answer.text for answer in refused)
    assert ready.status_code == 200
    assert again.status_code == 201
    assert {a["name"] for a in after["adapters"]} - {a["name"] for a in before["adapters"]} == {"large"}
    assert not clients.failed
    assert check["findings"] == []


def test_a_server_refuses_to_start_beside_a_store_that_has_lost_its_registry(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter], tmp_path: Path
) -> None:
    home = new_home()
    settings = Settings(home=home, demo=False, log_level="error")
    with run_server(settings) as running, running.client() as client:
        assert upload(client, "kept", peft_saved["first"].zip()).status_code == 201
        assert run("backup", tmp_path / "backup", "--home", home).exit_code == 0
    stored = sorted((home / "store").glob("*/*.zip"))
    for path in home.glob("registry.db*"):
        path.unlink()
    environment = {**os.environ, "ROOTSTOCK_HOME": str(home)}
    command = [ROOTSTOCK, "serve", "--server", "uvicorn", "--port", str(free_port())]
    Home(home).open_registry().close()
    start = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert start.returncode == 3, start.stderr
    assert "the registry was never used" in start.stderr
    assert "rootstock adapters restore" in start.stderr
    assert sorted((home / "store").glob("*/*.zip")) == stored
    assert run("restore", tmp_path / "backup", "--home", home, "--force").exit_code == 0
    with run_server(settings) as running, running.client() as client:
        assert ask(client, "kept", "ok").status_code == 200


def test_the_bytes_of_an_upload_that_was_killed_are_removed_at_the_next_start_and_no_others(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    home = new_home()
    settings = Settings(home=home, demo=False, log_level="error", undelete_days=0)
    with run_server(settings) as running, running.client() as client:
        kept = upload(client, "kept", peft_saved["first"].zip()).json()["digest"]
        other = upload(client, "other", peft_saved["second"].zip()).json()["digest"]
        assert client.delete("/v1/adapters/other").status_code == 204
        bytes_of_other = peft_saved["second"].zip()
    opened = Home(home)
    store = opened.open_store()
    assert list(store.digests()) == [kept]
    assert not list(opened.pending_folder.iterdir())
    # A mark and bytes without a version, as kill -9 leaves them; and a mark of a publication that was complete.
    foreign = "sha256:" + "0" * 64
    for digest in (other, foreign):
        store.put(digest, bytes_of_other)
    for digest in (other, kept):
        (opened.pending_folder / digest.removeprefix("sha256:")).touch()
    with run_server(settings) as running, running.client() as client:
        assert ask(client, "kept", "ok").status_code == 200
    assert sorted(store.digests()) == sorted([kept, foreign]), "without a mark, only fsck removes bytes"
    assert not list(opened.pending_folder.iterdir())


@pytest.mark.parametrize("force", [False, True])
def test_a_home_in_use_is_not_restored(
    serve: Callable[..., RunningServer], new_home: Callable[[], Path], tmp_path: Path, force: bool
) -> None:
    home = new_home()
    serve(home=home)
    assert run("backup", tmp_path / "backup", "--home", home).exit_code == 0
    told = run("restore", tmp_path / "backup", "--home", home, *(["--force"] if force else []))
    assert told.exit_code == 1
    assert "is in use by rootstock serve" in told.stderr
