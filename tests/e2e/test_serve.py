"""`rootstock serve` as a user starts it: a process, from an empty home, under each server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.bounds import HANG
from tests.marks import slow_except
from tests.serve_process import ROOTSTOCK, free_port, serving


@pytest.mark.parametrize("server", ["bentoml", "uvicorn"])
def test_an_empty_home_ends_in_a_server_that_answers_for_the_demo_adapters(
    new_home: Callable[[], Path], server: str
) -> None:
    with serving(new_home(), server) as (process, client):
        assert client.get("/readyz").status_code == 200

        def predict(model: str, text: str, **parameters: Any) -> Any:
            answer = client.post("/v1/predict", json={"model": model, "inputs": text, "parameters": parameters})
            assert answer.status_code == 200, answer.text
            return answer.json()["predictions"][0]

        assert predict("review-sentiment", "Wonderful, I would buy it again.")["label"] == "positive"
        assert predict("support-intents", "I want my money back for this order")["label"] == "refund_request"
        entities = predict("entities", "Amina flew to Lisbon on Monday.", aggregation_strategy="simple")
        assert "LOC" in {e["entity_group"] for e in entities}
        # Every answer is ours in shape, whoever would have given it: BentoML has routes of its own.
        for path in ("/healthz", "/docs.json", "/nope"):
            assert set(client.get(path).json()) == {"error"}
        assert "rootstock_batch_rows" in client.get("/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("server", slow_except(["uvicorn"], ["bentoml", "uvicorn"]))
def test_a_client_that_leaves_and_a_large_body_do_no_harm_under_each_server(
    new_home: Callable[[], Path], server: str
) -> None:
    with serving(new_home(), server, ROOTSTOCK_DEMO="false", ROOTSTOCK_MAX_BODY_MB="1") as (_, client):
        chunks = (b" " * 2**16 for _ in range(64))
        answer = client.post("/v1/predict", content=chunks)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert client.get("/livez", headers={"X-Filler": "x" * 2**16}).status_code == 431
        host, port = client.base_url.host, client.base_url.port or 0
        for lines, status in (
            ("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade", 400),
            ("POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1", 400),
            ("POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + "9" * 5000, 400),
            ("POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + "0" * 5000 + "9" * 9, 413),
            ("hello", 400),
        ):
            with socket.create_connection((host, port), HANG) as connection:
                connection.sendall(f"{lines}\r\n\r\n".encode())
                refusal = HTTPResponse(connection)
                refusal.begin()
                assert (refusal.status, set(json.loads(refusal.read()))) == (status, {"error"}), lines[:99]
        for _ in range(5):
            with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
                connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        ok = client.post("/v1/predict", json={"model": "foundation", "inputs": "still here"})
        assert ok.status_code == 200


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["--host", "0.0.0.0"], {}, "ROOTSTOCK_ADMIN_KEY"),
        ([], {"ROOTSTOCK_SLOTZ": "3"}, "unknown setting ROOTSTOCK_SLOTZ"),
        ([], {"ROOTSTOCK_SLOTS": "many"}, "ROOTSTOCK_SLOTS"),
        (["--foundation", "nowhere"], {}, "nowhere"),
        (["--server", "gunicorn"], {}, "ROOTSTOCK_SERVER"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_line_and_exit_code_2(
    arguments: list[str], settings: dict[str, str], message: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(tmp_path), **settings}
    done = subprocess.run(
        [ROOTSTOCK, "serve", "--port", str(free_port()), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("server", ["bentoml", "uvicorn"])
def test_a_port_that_is_taken_is_one_clear_line_and_exit_code_2(
    new_home: Callable[[], Path], server: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home())}
        # A foundation that is not there either: the port is looked at before any work on a foundation.
        command = [ROOTSTOCK, "serve", "--port", port, "--server", server, "--foundation", "nowhere"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"rootstock: cannot listen on 127.0.0.1:{port}: Address already in use")


def test_the_start_names_the_addresses_of_the_console_and_the_docs(new_home: Callable[[], Path]) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home())}
    command = [ROOTSTOCK, "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = next(line for line in process.stderr if "serving on" in line)
        process.kill()
    assert told == f"rootstock: serving on {address} (console at {address}/console, docs at {address}/docs)\n"


def test_a_relative_home_is_where_the_command_was_given(new_home: Callable[[], Path]) -> None:
    home = new_home()
    with serving(Path(home.name), "bentoml", cwd=home.parent, ROOTSTOCK_DEMO="false") as (_, client):
        assert client.get("/readyz").status_code == 200
    assert (home / "registry.db").is_file()


def test_demo_adapters_that_the_limits_refuse_are_skipped(new_home: Callable[[], Path]) -> None:
    with serving(new_home(), "uvicorn", ROOTSTOCK_MAX_RANK="3") as (_, client):
        assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["foundation"]


@pytest.mark.parametrize("server", slow_except(["uvicorn"], ["bentoml", "uvicorn"]))
def test_a_start_that_fails_gives_the_reason_in_one_line_and_exit_code_3(
    new_home: Callable[[], Path], server: str
) -> None:
    """Under BentoML it is the worker that cannot start."""
    home = new_home()
    (home / "store").write_text("not a folder")
    environment = {**os.environ, "ROOTSTOCK_HOME": str(home)}
    command = [ROOTSTOCK, "serve", "--port", str(free_port()), "--server", server]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 3, done.stderr
    (reason,) = [line for line in done.stderr.splitlines() if "cannot start" in line]
    assert reason.startswith("rootstock: the server cannot start: ")
    assert str(home / "store") in reason
    assert "Traceback" not in done.stderr


def test_of_two_servers_that_start_on_one_home_at_one_instant_one_serves_and_the_other_names_it(
    new_home: Callable[[], Path],
) -> None:
    environment = {**os.environ, "ROOTSTOCK_HOME": str(new_home()), "ROOTSTOCK_DEMO": "false"}
    commands = [
        [ROOTSTOCK, "serve", "--server", server, "--port", str(free_port())] for server in ("bentoml", "uvicorn")
    ]
    started = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]

    def until_ready_or_ended(process: subprocess.Popen[str]) -> list[str]:
        assert process.stderr is not None
        lines: list[str] = []
        while not (lines and '"event": "ready"' in lines[-1]) and (line := process.stderr.readline()):
            lines.append(line)
        return lines

    try:
        with ThreadPoolExecutor() as threads:
            said = dict(zip(started, threads.map(until_ready_or_ended, started), strict=True))
        (winner,) = [process for process, lines in said.items() if '"event": "ready"' in lines[-1]]
        (loser,) = [process for process in started if process is not winner]
        assert (loser.wait(HANG), len(said[loser])) == (2, 1), said[loser]
        assert f"is in use by rootstock serve, process {winner.pid}: " in said[loser][0]
    finally:
        for process in started:
            process.terminate()
            process.communicate(timeout=HANG)


def test_the_worker_ends_when_bentoml_s_parent_is_killed(new_home: Callable[[], Path]) -> None:
    with serving(new_home(), "bentoml", ROOTSTOCK_DEMO="false") as (process, _):
        process.kill()
        # The worker holds the other end of stderr: it reads to the end only once the worker is gone.
        assert process.stderr is not None
        process.stderr.read()
