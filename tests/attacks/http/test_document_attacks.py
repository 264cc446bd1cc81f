"""schemathesis generates requests from the OpenAPI document, sound and unsound ones, and finds nothing wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootstock.service.settings import Settings
from tests.bounds import HANG
from tests.live_server import OWNER, RunningServer, run_server
from tests.service.engine.generate.families import make_decoder

HERE = Path(__file__).parent
SCHEMATHESIS = str(Path(sys.executable).parent / "schemathesis")


@pytest.fixture
def generating(new_home: Callable[[], Path], tmp_path: Path) -> Iterator[RunningServer]:
    """Yield a server for one test alone: the requests delete its adapters.

    It has keys, and the requests have the admin's. Without keys schemathesis would send an invented key with most
    requests, and the server would refuse them before it reads them.
    """
    tiny = make_decoder("llama", tmp_path / "chat")
    settings = Settings(
        home=new_home(), foundations=f"default,{tiny.folder}", log_level="error", max_body_mb=1, admin_key=OWNER
    )
    with run_server(settings) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_lost() -> None:
    """Do without the traffic beside the other attacks, which is on another server."""


def cases(running: RunningServer, folder: Path, *options: str) -> int:
    """Run schemathesis with every check, print its report, and return the number of its cases."""
    # A file, because schemathesis waits for the document for 10 seconds at most.
    document = folder / "openapi.json"
    with running.client(OWNER) as client:
        document.write_bytes(client.get("/openapi.json").content)
    command = [
        SCHEMATHESIS, "--config-file", str(HERE / "schemathesis.toml"), "run", str(document),
        "--url", running.url,
        "--checks", "all", "--seed", "41", "--no-color", "--continue-on-failure", "--request-timeout", str(HANG),
        "--header", f"Authorization: Bearer {OWNER}",
        *options,
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "document_checks.py")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, "schemathesis found faults; see its report above"
    counted = re.search(r"(\d[\d,]*) generated", done.stdout)
    assert counted is not None
    return int(counted[1].replace(",", ""))


@pytest.mark.slow
def test_generated_requests_find_no_fault(generating: RunningServer, tmp_path: Path) -> None:
    assert cases(generating, tmp_path, "--phases", "examples,fuzzing", "--max-examples", "2") >= 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_5000_generated_requests_find_no_fault(generating: RunningServer, tmp_path: Path) -> None:
    count = cases(generating, tmp_path, "--max-examples", "60")
    print(f"{count} cases")
    assert count >= 5000
