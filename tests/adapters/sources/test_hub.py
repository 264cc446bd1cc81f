"""`push org/name@revision`: the commit that the revision means is fetched, converted and sent."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from tests.adapters.stand_in import StandIn, serving
from tests.fake_hub import COMMIT, REPO, FakeHub, run_hub
from tests.loopback_server import run_loopback
from tests.peft_adapters import save_adapter

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command with a hub, whose address the client reads when it is imported."""

    def ran(hub: FakeHub | str, *words: str) -> subprocess.CompletedProcess[str]:
        url = hub if isinstance(hub, str) else hub.url
        online = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
        command = [sys.executable, "-m", "rootstock.adapters.cli.console", "adapters", *words]
        return subprocess.run(command, env={**os.environ, **online}, capture_output=True, text=True, check=False)

    return ran


def test_a_whole_model_of_a_branch_is_pushed_at_its_commit(
    server: StandIn, run: Run, tuned: Callable[..., Path], tiny: FoundationFiles, tiny_spec: FoundationSpec
) -> None:
    with run_hub(tuned()) as hub:
        done = run(hub, "push", f"{REPO}@main", "--foundation", str(tiny.folder), "--url", server.url, "--json")
    assert done.returncode == 0, done.stderr
    assert server.seen[0].form["name"] == "tuned"
    source = json.loads(done.stdout)["source"]
    assert (source["from"], source["repo"], source["commit"]) == ("whole checkpoint", REPO, COMMIT)
    bundle = open_bundle(server.seen[0].bundle, Limits(), tiny_spec)
    assert bundle.manifest.provenance == {"source": {"repo": REPO, "commit": COMMIT}}
    # Pickles and a Trainer's states are never fetched.
    assert sorted(hub.fetched) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "trainer_state.json",
    ]  # fmt: skip


def test_an_adapter_of_the_hub_is_sent_as_it_is(
    server: StandIn, run: Run, tiny: FoundationFiles, tmp_path: Path
) -> None:
    saved = save_adapter(tiny.folder, tmp_path / "adapter", "SEQ_CLS", 1)
    with run_hub(saved.folder) as hub:
        done = run(hub, "push", f"{REPO}@{COMMIT}", "--name", "mine", "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert f"from the hub: {REPO} at commit {COMMIT}" in done.stdout.splitlines()
    assert server.seen[0].form["name"] == "mine"


@pytest.mark.parametrize("reference", ["Lab/Other@main", f"{REPO}@v2", f"{REPO}@{'f' * 40}"])
def test_a_model_or_revision_that_the_hub_lacks_is_one_line(
    run: Run, tuned: Callable[..., Path], reference: str
) -> None:
    with run_hub(tuned()) as hub:
        done = run(hub, "push", reference)
    assert_one_line(done, reference)


def assert_one_line(done: subprocess.CompletedProcess[str], reference: str) -> None:
    """Assert that a command ended with one line that names the reference and the settings to check."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith(f"rootstock adapters: {reference} cannot be fetched from the hub: ")
    assert done.stderr.endswith("; check the reference, the network and HF_ENDPOINT\n")
    assert done.stderr.count("\n") == 1


def test_a_hub_on_a_closed_port_is_one_line(run: Run) -> None:
    with socket.socket() as bound:
        # A socket that is bound and does not listen refuses connections.
        bound.bind(("127.0.0.1", 0))
        done = run(f"http://127.0.0.1:{bound.getsockname()[1]}", "push", f"{REPO}@main")
    assert_one_line(done, f"{REPO}@main")


@pytest.mark.parametrize("address", ["no address", "http://" + "a" * 80 + ".example"])
def test_an_address_that_is_none_is_one_line(run: Run, address: str) -> None:
    assert_one_line(run(address, "push", f"{REPO}@main"), f"{REPO}@main")


@pytest.mark.parametrize("body", [b"<html></html>", b"null", b"[]"])
@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_server_that_is_no_hub_is_one_line(run: Run, body: bytes, revision: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with run_loopback(Handler) as url:
        done = run(url, "push", f"{REPO}@{revision}")
    assert_one_line(done, f"{REPO}@{revision}")
