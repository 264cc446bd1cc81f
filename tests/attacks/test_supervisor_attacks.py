"""A process on the server's machine asks the server's supervisor to run a command, and plants modules for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import zmq

from tests.bounds import HANG
from tests.process_tree import listeners
from tests.serve_process import ROOTSTOCK, free_port, until_ready

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

SERVICE = "rootstock.service.bento:Rootstock"
BENTOML = [sys.executable, "-m", "bentoml", "serve"]
COMMANDS = pytest.mark.parametrize(
    "command",
    [
        [ROOTSTOCK, "serve", "--server", "bentoml"],
        pytest.param([ROOTSTOCK, "serve", "--server", "uvicorn"], marks=pytest.mark.slow),
        pytest.param([*BENTOML, SERVICE], marks=pytest.mark.slow),
    ],
    ids=["rootstock bentoml", "rootstock uvicorn", "bentoml serve"],
)
# A port that speaks no ZeroMQ never answers.
NO_ANSWER_SECONDS = 1


@contextmanager
def started(command: list[str], home: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a server by a command and yield its process and port once it is ready; stop it at the end."""
    port = free_port()
    environment = {**os.environ, "ROOTSTOCK_HOME": str(home), "ROOTSTOCK_DEMO": "false", **settings}
    with subprocess.Popen(
        [*command, "--port", str(port)], env=environment, cwd=home, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until_ready(process)
            yield process, port
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            process.stderr.read()
            process.wait(HANG)


def ask_to_run(addresses: list[str], seconds: float, *command: str) -> dict[str, str] | None:
    """Send circus's command `add` with a program to start, and return the first answer; None if none comes."""
    properties = {"name": "canary", "cmd": command[0], "args": command[1:], "start": True, "waiting": True}
    with zmq.Context() as context, ExitStack() as stack:
        poller = zmq.Poller()
        for address in addresses:
            asker = stack.enter_context(context.socket(zmq.DEALER))
            # Without linger the close drops what no supervisor has taken.
            asker.linger = 0
            asker.connect(address)
            asker.send(json.dumps({"id": "1", "command": "add", "properties": properties}).encode())
            poller.register(asker, zmq.POLLIN)
        for asker, _ in poller.poll(seconds * 1000):
            # The HTTP port may answer that this is no HTTP.
            with suppress(ValueError):
                answer: dict[str, str] = json.loads(asker.recv())
                return answer
    return None


def test_the_attack_runs_a_command_under_a_service_that_leaves_bentoml_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("import bentoml\n\n@bentoml.service(workers=1)\nclass Plain:\n    pass\n")
    canary = tmp_path / "canary"
    port = free_port()
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(tmp_path / "bentoml")}
    command = [*BENTOML, "plain:Plain", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=20), timeout=HANG) as client:
                assert client.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            answer = ask_to_run(listeners(process).addresses, HANG, "touch", str(canary))
            assert answer is not None
            assert answer["status"] == "ok"
            ends = time.monotonic() + HANG
            while not canary.exists():
                assert time.monotonic() < ends, "the supervisor never ran the command"
        finally:
            process.terminate()
            process.wait(HANG)


@COMMANDS
def test_a_server_listens_on_its_http_port_alone_and_runs_no_command_for_a_neighbour(
    command: list[str], new_home: Callable[[], Path], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    with started(command, new_home()) as (process, port):
        found = listeners(process)
        answer = ask_to_run(found.addresses, NO_ANSWER_SECONDS, "touch", str(canary))
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=HANG).status_code == 200
    assert found.ports == {("127.0.0.1", port)}
    assert not found.paths
    assert answer is None
    assert not canary.exists()


def test_bentoml_s_command_listens_beyond_loopback_only_with_an_admin_key(new_home: Callable[[], Path]) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home())}
    command = [*BENTOML, SERVICE, "--host", "0.0.0.0", "--port", str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode != 0
    assert "there is no ROOTSTOCK_ADMIN_KEY" in done.stderr
    assert "Traceback" not in done.stderr


def test_bentoml_s_reload_which_needs_the_control_port_is_refused(new_home: Callable[[], Path]) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home())}
    command = [*BENTOML, SERVICE, "--reload", "--port", str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode != 0
    assert "--reload needs a port through which every local process can run commands" in done.stderr


def test_a_module_that_a_neighbour_left_in_the_working_folder_is_not_imported(
    new_home: Callable[[], Path], tmp_path: Path
) -> None:
    home, canary = new_home(), tmp_path / "canary"
    # Each of these names is imported by BentoML, by its supervisor or by the app.
    for name in ("bentoml", "bentoml_cli", "circus", "zmq", "tornado", "uvicorn", "fastapi", "tokenizers"):
        (home / f"{name}.py").write_text(f"open({str(canary)!r}, 'a').write({name!r})\nraise ImportError\n")
    with started([ROOTSTOCK, "serve", "--server", "bentoml"], home):
        pass
    assert not canary.exists()


@pytest.mark.parametrize(
    "command",
    [[ROOTSTOCK, "serve"], pytest.param([*BENTOML, SERVICE], marks=pytest.mark.slow)],
    ids=["rootstock", "bentoml"],
)
def test_what_a_server_writes_into_a_new_home_is_closed_to_other_users(
    command: list[str], new_home: Callable[[], Path], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    exports = str(new_home())
    with started(command, tmp_path, ROOTSTOCK_HOME=str(home), ROOTSTOCK_EXPORTS=exports, ROOTSTOCK_DEMO="true"):
        written = {path.name: path.stat().st_mode & 0o077 for path in (home, *home.rglob("*"))}
    assert written["home"] == 0
    assert {"registry.db", "store"} <= written.keys()
    assert {name: oct(mode) for name, mode in written.items() if mode} == {}
