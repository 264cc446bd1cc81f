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

FILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"


class Server(BaseHTTPRequestHandler):
    """Two adapters; `fickle` gives a new label each time."""

    protocol_version = "HTTP/1.1"
    fickle = False
    labels = count()

    def do_GET(self) -> None:
        self._answer(
            {"adapters": [{"name": "a", "live": 1}, {"name": "b", "live": 2}, {"name": "c", "live": None}]}
        )

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        label = f"LABEL_{next(self.labels) if self.fickle else 0}"
        self._answer({"model": name, "digest": f"sha256:{name}", "predictions": [{"label": label, "score": 1.0}]})

    def _answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def locust(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "locust", "-f", str(FILE), "--headless", "-u", "2", "-r", "2", "-t", "1s"]
    return subprocess.run(
        [*command, "--host", url, "--popularity", "zipf", "--only-summary"],
        capture_output=True,
        text=True,
        check=False,
        cwd=FILE.parents[1],
    )


def test_a_sound_server_passes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "fickle", False)
    done = locust(url)
    assert done.returncode == 0, done.stderr
    assert "/v1/predict" in done.stdout + done.stderr


def test_two_labels_for_one_input_at_one_digest_fail(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "fickle", True)
    done = locust(url)
    assert done.returncode == 1
    assert "answered one text with" in done.stdout + done.stderr
