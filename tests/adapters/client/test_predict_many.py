"""Many inputs become few calls, and the results come in the order of the inputs."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootstock.adapters.client.async_client import AsyncClient
from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import InvalidRequest, Misused
from rootstock.adapters.client.predictions import ClassificationResult
from tests.bounds import HANG
from tests.loopback_server import run_loopback

DIGEST = f"sha256:{'d' * 64}"


class LabelServer:
    """A transport that answers each text with itself as the label, and refuses calls of too many characters."""

    def __init__(self, max_inputs: int = 8, max_characters: int = 10**9) -> None:
        self.max_inputs = max_inputs
        self.max_characters = max_characters
        self.calls: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/limits":
            return httpx.Response(200, json={"max_inputs": self.max_inputs})
        inputs = json.loads(request.content)["inputs"]
        if sum(map(len, inputs)) > self.max_characters or len(inputs) > self.max_inputs:
            error = {"message": "too large", "type": "t", "param": "inputs", "code": "request_too_large"}
            return httpx.Response(413, json={"error": error})
        self.calls.append(len(inputs))
        predictions = [{"label": text, "score": 1.0} for text in inputs]
        told = {"digest": DIGEST, "version": 1, "task": "text-classification", "predictions": predictions}
        return httpx.Response(200, json=told)

    def client(self) -> Client:
        return Client("http://127.0.0.1:9", transport=httpx.MockTransport(self))

    def async_client(self) -> AsyncClient:
        return AsyncClient("http://127.0.0.1:9", transport=httpx.MockTransport(self))


SIZES = st.integers(1, 12)


@given(
    texts=st.lists(st.text("ab", max_size=9), max_size=40),
    batch=SIZES,
    concurrency=st.integers(1, 4),
    max_inputs=SIZES,
    max_characters=st.integers(9, 60),
    asynchronous=st.booleans(),
)
def test_results_come_in_the_order_of_the_inputs_however_they_are_split(
    texts: list[str], batch: int, concurrency: int, max_inputs: int, max_characters: int, asynchronous: bool
) -> None:
    server = LabelServer(max_inputs, max_characters)
    options: dict[str, Any] = {"batch": batch, "concurrency": concurrency}

    async def ask() -> list[Any]:
        async with server.async_client() as client:
            return [one async for one in client.predict_many("a", texts, ClassificationResult, **options)]

    if asynchronous:
        results = asyncio.run(ask())
    else:
        with server.client() as client:
            results = list(client.predict_many("a", iter(texts), ClassificationResult, **options))
    assert [result.label for result in results] == texts
    assert {result.digest for result in results} <= {DIGEST}
    assert max(server.calls, default=0) <= min(batch, max_inputs)
    assert sum(server.calls) == len(texts)


def test_a_call_has_as_many_inputs_as_the_batch_and_the_server_allow() -> None:
    server = LabelServer(max_inputs=8)
    with server.client() as client:
        list(client.predict_many("a", map(str, range(20)), batch=50, concurrency=1))
        assert server.calls == [8, 8, 4]
        list(client.predict_many("a", map(str, range(4)), batch=3, concurrency=1))
        assert server.calls[3:] == [3, 1]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_endless_iterable_is_read_only_as_far_as_the_results_are(asynchronous: bool) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield str(read)

    async def first_async() -> Any:
        async with LabelServer().async_client() as client:
            results = client.predict_many("a", endless(), batch=4, concurrency=3)
            return await anext(results)

    if asynchronous:
        assert asyncio.run(first_async()).label == "1"
    else:
        with LabelServer().client() as client:
            assert next(client.predict_many("a", endless(), batch=4, concurrency=3)).label == "1"
    assert read <= 4 * (3 + 1)


def test_an_input_that_is_too_large_alone_is_refused_after_the_results_before_it() -> None:
    server = LabelServer(max_characters=5)
    with server.client() as client:
        results = client.predict_many("a", ["ok", "too long", "ok"], batch=1, concurrency=2)
        assert next(results).label == "ok"
        with pytest.raises(InvalidRequest, match="too large"):
            next(results)


@pytest.mark.parametrize(("inputs", "total"), [([str(i) for i in range(5)], 5), (map(str, range(5)), None)])
def test_progress_counts_the_results(inputs: Any, total: int | None) -> None:
    told: list[tuple[int, int | None]] = []
    with LabelServer().client() as client:
        list(client.predict_many("a", inputs, batch=2, progress=lambda done, of: told.append((done, of))))
    assert told == [(2, total), (4, total), (5, total)]


def test_on_a_terminal_a_bar_is_shown_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stderr, monkeypatch.context() as patched, LabelServer().client() as client:
        patched.setattr(sys, "stderr", stderr)
        assert len(list(client.predict_many("a", ["x"] * 5, batch=2, progress=True))) == 5
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):
        # Linux ends a terminal that nobody writes to any more with an error.
        while piece := terminal.read(4096):
            shown += piece
    assert b"predicting" in shown
    assert b"5/5" in shown


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"concurrency": 0}])
def test_a_plan_without_a_call_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with LabelServer().client() as client, pytest.raises(Misused, match="is 0; give 1 or more"):
        client.predict_many("a", ["x"], **wrong)


@pytest.mark.parametrize("one", ["abc", b"abc", {"text": "a"}])
def test_one_input_in_place_of_many_is_refused_at_once(one: Any) -> None:
    server = LabelServer()
    with server.client() as client, pytest.raises(Misused, match="not many inputs; give a list, or call predict"):
        client.predict_many("a", one)
    with pytest.raises(Misused, match="not many inputs"):
        server.async_client().predict_many("a", one)
    assert server.calls == []


# Seconds for which an answer is held; far longer than what need not wait for it takes.
HOLD = 20.0


class Held:
    """A server that answers "x" at once, refuses "wrong" at once, and holds the answer to "held"."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = threading.Semaphore(0)
        self.released = threading.Event()
        # Is set if the answer was held until its end, because somebody waited for it.
        self.overdue = threading.Event()
        self.tries = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        held = self

        class Holding(BaseHTTPRequestHandler):
            """Answers the other call once the held one has arrived."""

            def do_GET(self) -> None:
                self.answer(200, {"max_inputs": 8})

            def do_POST(self) -> None:
                text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"][0]
                if text == "held":
                    held.tries += 1
                    held.asked.release()
                    if not held.released.wait(0 if held.overdue.is_set() else HOLD):
                        held.overdue.set()
                    self.answer(503, {"error": {"message": "later", "code": "draining"}})
                    return
                held.asked.acquire(timeout=HANG)
                told = {"digest": DIGEST, "version": 1, "task": "text-classification"}
                refused = {"error": {"message": "wrong input", "code": "invalid_input"}}
                good = {**told, "predictions": [{"label": text, "score": 1.0}]}
                self.answer(*((422, refused) if text == "wrong" else (200, good)))

            def answer(self, status: int, document: Any) -> None:
                body = json.dumps(document).encode()
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with run_loopback(Holding) as url:
            try:
                yield url
            finally:
                self.released.set()


def test_an_error_comes_at_once_while_another_call_waits_for_its_answer() -> None:
    server = Held()
    with server.serving() as url, Client(url, timeout=HANG) as client:
        results = client.predict_many("a", ["wrong", "held"], batch=1, concurrency=2)
        with pytest.raises(InvalidRequest, match="wrong input"):
            next(results)
        assert not server.overdue.is_set()


def test_whoever_leaves_the_results_does_not_wait_for_the_other_calls() -> None:
    server = Held()
    with server.serving() as url, Client(url, timeout=HANG) as client:
        results = client.predict_many("a", ["x", "held"], batch=1, concurrency=2)
        assert next(results).label == "x"
        results.close()
        assert not server.overdue.is_set()


def test_a_call_that_nobody_waits_for_is_not_repeated() -> None:
    server = Held()
    slept: list[float] = []
    before = {*threading.enumerate()}
    with server.serving() as url, Client(url, timeout=HANG, sleep=slept.append) as client:
        results = client.predict_many("a", ["x", "held"], batch=1, concurrency=2)
        assert next(results).label == "x"
        calls = [one for one in threading.enumerate() if one not in before and "(run)" in one.name]
        assert calls
        results.close()
        server.released.set()
        for call in calls:
            call.join(HANG)
            assert not call.is_alive()
        assert (server.tries, slept) == (1, [])


# A job in the background of a shell ignores SIGINT, and so would Python.
SCRIPT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from rootstock.adapters.client.client import Client
results = Client(sys.argv[1], timeout=float(sys.argv[2])).predict_many("a", ["x", "held"], batch=1, concurrency=2)
print(next(results).label, flush=True)
next(results)
"""


def test_ctrl_c_ends_a_process_that_waits_for_a_call() -> None:
    server = Held()
    with server.serving() as url:
        command = [sys.executable, "-c", SCRIPT, url, str(HANG)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "x\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=HANG)
        assert "KeyboardInterrupt" in said
        assert not server.overdue.is_set()
