"""`push org/name@revision`: the commit that the revision means is fetched, converted and sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootstock.adapters.bundle import Limits, open_bundle
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.adapters.spec import FoundationSpec
from tests.adapters.stand_in import StandIn, serving
from tests.fake_hub import COMMIT, REPO, FakeHub, run_hub
from tests.peft_adapters import save_adapter

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command with a hub, whose address the client reads when it is imported."""

    def ran(hub: FakeHub, *words: str) -> subprocess.CompletedProcess[str]:
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
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
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rootstock adapters: {reference} cannot be fetched from the hub: ")
    assert done.stderr.count("\n") == 1
