"""The locust users finish clean against a sound server, and report one that changes its mind or breaks off."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.loopback_server import run_loopback

FILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"


# Answers, of which some must be to one input: there are five texts for each of two adapters.
ENOUGH = 50


class Server(BaseHTTPRequestHandler):
    """Two adapters and a model; `fickle` gives a new label each time. `enough` is set after so many answers.

    A chat is streamed in three pieces, or breaks off after the second one if `broken`.
    """

    protocol_version = "HTTP/1.1"
    fickle = False
    broken = False
    labels = count()
    predictions = count(1)
    enough = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            tasks = {"a": "text-classification", "chatty": "text-generation"}
            self._answer({"data": [{"id": name, "task": task} for name, task in tasks.items()]})
            return
        self._answer(
            {"adapters": [{"name": "a", "live": 1}, {"name": "b", "live": 2}, {"name": "c", "live": None}]}
        )

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        if self.path == "/v1/chat/completions":
            self._stream(name)
            return
        number = next(self.labels)
        label = f"LABEL_{number if self.fickle else 0}"
        self._answer({"model": name, "digest": f"sha256:{name}", "predictions": [{"label": label, "score": 1.0}]})
        self._count()

    def _count(self) -> None:
        if next(self.predictions) >= ENOUGH:
            self.enough.set()

    def _stream(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for text, finish in (("Good ", None), ("day", None), (".", "stop")):
            if finish and self.broken:
                break
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
            self.wfile.write(f"data: {json.dumps({'model': name, 'choices': [choice]})}\n\n".encode())
        else:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True
        self._count()

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
    with run_loopback(Server) as url:
        yield url


def locust(url: str, user: str = "PredictUser") -> tuple[int, str]:
    """The exit code and the output of a run that is stopped once the server has sent ENOUGH answers."""
    command = [sys.executable, "-m", "locust", "-f", str(FILE), user, "--headless", "-u", "2", "-r", "2"]
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


def lines(output: str, kind: str) -> list[list[str]]:
    """The words of the table's lines for a type of request and the chats' route."""
    start = [*kind.split(), "/v1/chat/completions"]
    return [words for line in output.splitlines() if (words := line.split())[: len(start)] == start]


def test_a_chat_user_shows_the_first_token_and_the_further_ones_of_the_models_that_generate(url: str) -> None:
    code, output = locust(url, "ChatUser")
    assert code == 0, output
    requests, first, further = (
        int(lines(output, kind)[0][len(kind.split()) + 1]) for kind in ("POST", "first token", "token")
    )
    assert requests >= ENOUGH - 2
    assert first == requests
    assert further == 2 * requests


def test_a_chat_that_breaks_off_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "broken", True)
    code, output = locust(url, "ChatUser")
    assert code == 1, output
    assert "the stream ended without [DONE]" in output
