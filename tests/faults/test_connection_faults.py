"""Clients that hold a connection and do nothing with it, or next to nothing: what the others notice."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.bounds import HANG
from tests.faults.clients import Clients, ask
from tests.faults.conftest import State
from tests.live_server import RunningServer

IDLE = 1000
MODELS = ("review-sentiment",)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for both ends of the connections in this one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * IDLE
    assert hard == resource.RLIM_INFINITY or hard >= wanted, f"ulimit -Hn is {hard}; this test needs {wanted}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(running: RunningServer, stack: ExitStack, receive_bytes: int | None = None) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    connection = stack.enter_context(socket.socket())
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(HANG)
    connection.connect((host, int(port)))
    return connection


def posted(body: bytes) -> bytes:
    head = ("POST /v1/embeddings HTTP/1.1", "Host: localhost", "Content-Type: application/json")
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


def read(connection: socket.socket) -> bytes:
    """The body of the answer, which has to be a 200."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.status == 200
    return answer.read()


@pytest.mark.usefixtures("many_files")
def test_a_thousand_idle_connections_cost_the_others_no_answer(
    serve: Callable[..., RunningServer], state: State
) -> None:
    running = serve(demo=True)
    with ExitStack() as stack, running.client() as client:
        idle = [connect(running, stack) for _ in range(IDLE)]
        with Clients(running.url, MODELS) as clients:
            clients.more(30)
        assert client.get("/readyz").status_code == 200
        # They are no dead weight either: each can still be used.
        idle[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read(idle[-1])
    assert not clients.failed
    assert not clients.broken
    state("1,000 idle connections", "nothing", 0.0)


def test_clients_that_stop_in_the_middle_of_a_request_hold_up_nobody(
    serve: Callable[..., RunningServer], state: State
) -> None:
    running = serve(demo=True)
    with ExitStack() as stack:
        body = json.dumps({"model": "foundation", "input": "slow"}).encode()
        slow = [connect(running, stack) for _ in range(100)]
        for i, connection in enumerate(slow):
            connection.sendall(posted(body)[: 10 + i])
        with Clients(running.url, MODELS) as clients:
            clients.more(30)
        began = time.monotonic()
        for i, connection in enumerate(slow):
            connection.sendall(posted(body)[10 + i :])
        assert all(read(connection) for connection in slow)
        seconds = time.monotonic() - began
    assert not clients.failed
    state(
        "100 clients that stop in the middle of a request", "nothing; each is answered once it goes on", seconds
    )


def test_clients_that_do_not_read_their_answers_hold_up_nobody(
    serve: Callable[..., RunningServer], state: State
) -> None:
    running = serve(demo=True)
    # About two megabytes an answer: more than the sockets between them hold.
    body = json.dumps({"model": "foundation", "input": ["slow"] * 256}).encode()
    with ExitStack() as stack, running.client() as client:
        slow = [connect(running, stack, receive_bytes=4096) for _ in range(6)]
        for connection in slow:
            connection.sendall(posted(body))
        with Clients(running.url, MODELS) as clients:
            clients.more(30)
        began = time.monotonic()
        assert ask(client, MODELS[0], "ok").status_code == 200
        for connection in slow:
            assert len(json.loads(read(connection))["data"]) == 256
        seconds = time.monotonic() - began
    assert not clients.failed
    state("6 clients that do not read answers of 2 MB", "nothing; each gets all of it once it reads", seconds)
