"""The locust user finishes clean against a sound server, and reports one that changes its mind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

# More than two users can have under way beside one answer for each of two names and five texts.
ENOUGH = 2 * 5 + 1 + 2
FILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"


# Answers, of which some must be to one input: there are five texts for each of two adapters.
ENOUGH = 50


class Server(BaseHTTPRequestHandler):
    """Two adapters; `fickle` gives a new label each time. `enough` is set after so many answers."""

    protocol_version = "HTTP/1.1"
    fickle = False
    labels = count()
    predictions = count(1)
    enough = threading.Event()

    def do_GET(self) -> None:
        self._answer(
            {"adapters": [{"name": "a", "live": 1}, {"name": "b", "live": 2}, {"name": "c", "live": None}]}
        )

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        number = next(self.labels)
        label = f"LABEL_{number if self.fickle else 0}"
        self._answer({"model": name, "digest": f"sha256:{name}", "predictions": [{"label": label, "score": 1.0}]})
        if next(self.predictions) >= ENOUGH:
            self.enough.set()

    def _answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    Server.predictions, Server.enough = count(1), threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def locust(url: str) -> tuple[int, str]:
    """The exit code and the output of a run that is stopped once the server has sent ENOUGH answers."""
    command = [sys.executable, "-m", "locust", "-f", str(FILE), "--headless", "-u", "2", "-r", "2"]
    with subprocess.Popen(
        [*command, "--host", url, "--popularity", "zipf", "--only-summary"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=FILE.parents[1],
    ) as process:
        enough = Server.enough.wait(120)
        process.terminate()
        output, _ = process.communicate()
    assert enough, output
    return process.returncode, output


def test_a_sound_server_passes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "fickle", False)
    code, output = locust(url)
    assert code == 0, output
    assert "/v1/predict" in output


def test_two_labels_for_one_input_at_one_digest_fail(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "fickle", True)
    code, output = locust(url)
    assert code == 1, output
    assert "answered one text with" in output
