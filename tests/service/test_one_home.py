"""A home over its life: imported into, served from, held by one program, warm where it is told to be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from rootstock.adapters.cli.adapter_commands import app
from rootstock.adapters.foundation.location import FoundationFiles
from rootstock.service.settings import Settings
from tests.bounds import HANG
from tests.live_server import RunningServer, run_server, upload
from tests.peft_adapters import TEXTS, PeftAdapter, close, peft_outputs
from tests.serve_process import ROOTSTOCK, free_port

RAW = {"function_to_apply": "none", "top_k": None}


def imported(folder: Path, home: Path) -> Result:
    return CliRunner().invoke(app, ["import", str(folder), "--home", str(home)])


def residency(client: httpx.Client, name: str, version: int) -> str:
    told: str = client.get(f"/v1/adapters/{name}/versions/{version}").json()["residency"]
    return told


def test_what_was_imported_is_served_as_peft_computes_it_and_a_served_home_is_refused_to_others(
    new_home: Callable[[], Path],
    tmp_path: Path,
    peft_saved: dict[str, PeftAdapter],
    foundation: FoundationFiles,
) -> None:
    home = new_home()
    (tmp_path / "mood.zip").write_bytes(peft_saved["second"].zip())
    assert imported(tmp_path, home).exit_code == 0
    right = peft_outputs(foundation.folder, peft_saved["second"], TEXTS[:1])[0]
    with run_server(Settings(home=home, demo=False, log_level="error")) as running, running.client() as client:
        body = {"model": "mood", "inputs": TEXTS[0], "parameters": RAW}
        scores = client.post("/v1/predict", json=body).json()["predictions"][0]
        logits = [score for _, score in sorted((p["label"], p["score"]) for p in scores)]
        assert close(np.array(logits), right)
        holder = f"is in use by rootstock serve, process {os.getpid()}"
        refused = imported(tmp_path, home)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert holder in refused.stderr
        environment = {**os.environ, "ROOTSTOCK_HOME": str(home)}
        second = subprocess.run(
            [ROOTSTOCK, "serve", "--port", str(free_port())],
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert (second.returncode, second.stdout) == (2, "")
        assert holder in second.stderr
        assert second.stderr.count("\n") == 1
    assert imported(tmp_path, home).stdout == "0 imported, 1 already registered, 0 skipped\n"


def test_activating_and_rolling_back_load_what_the_name_means_ahead_of_requests(
    new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    settings = Settings(home=new_home(), demo=False, log_level="error")
    with run_server(settings) as running, running.client() as client:
        for kind in ("first", "second", "scalar"):
            assert upload(client, "mood", peft_saved[kind].zip()).status_code == 201
            assert residency(client, "mood", 1) == "memory"
    with run_server(settings) as running, running.client() as client:
        assert [residency(client, "mood", n) for n in (1, 2, 3)] == ["store"] * 3
        client.put("/v1/adapters/mood/aliases/live", json={"version": 1})
        while residency(client, "mood", 1) == "store":
            pass
        client.post("/v1/adapters/mood/rollback")
        while residency(client, "mood", 3) == "store":
            pass
        assert residency(client, "mood", 2) == "store"


def test_a_pinned_name_is_in_a_slot_when_the_server_is_ready_and_its_new_version_takes_over(
    serve: Callable[..., RunningServer], new_home: Callable[[], Path], peft_saved: dict[str, PeftAdapter]
) -> None:
    home = new_home()
    with run_server(Settings(home=home, demo=False, log_level="error")) as running, running.client() as client:
        for name, kind in (("mood", "first"), ("mood", "scalar"), ("b", "second"), ("c", "tokens")):
            assert upload(client, name, peft_saved[kind].zip()).status_code == 201
    with serve(home=home, pin="mood", slots=4).client() as client:
        while residency(client, "mood", 2) != "slot":
            pass
        for name in ("b", "c", "mood@1", "b"):
            assert client.post("/v1/predict", json={"model": name, "inputs": "x"}).status_code == 200
        assert residency(client, "mood", 2) == "slot"
        client.post("/v1/adapters/mood/rollback")
        while residency(client, "mood", 1) != "slot":
            pass
        for name in ("b", "c"):
            assert client.post("/v1/predict", json={"model": name, "inputs": "x"}).status_code == 200
        assert [residency(client, "mood", n) for n in (1, 2)] == ["slot", "memory"]


@pytest.mark.parametrize(
    ("pin", "slots", "told"),
    [
        ("a,b", 4, "names 2 references; at most 1 may be pinned with ROOTSTOCK_SLOTS=4"),
        ("a", 3, "at most 0 may be pinned"),
        ("a, b?", 9, "'b?' is not a name"),
        ("foundation", 9, "foundation is always in memory"),
    ],
)
def test_pins_that_cannot_be_are_refused_at_start(pin: str, slots: int, told: str) -> None:
    with pytest.raises(ValidationError, match=told.replace("?", r"\?")):
        Settings(pin=pin, slots=slots)


def test_a_reference_that_is_named_twice_is_pinned_once() -> None:
    assert Settings(pin=" a, b@2,,a", slots=5).pinned == ("a", "b@2")
