"""Clients that keep connections and memory of the server: each connection is bounded, and so is their number."""

from __future__ import annotations

import http.client
import json
import select
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from rootstock.service.api.connection import protocol
from rootstock.service.api.connection.protocol import MAX_HEAD_BYTES, MAX_PIPELINED
from tests.attacks.http.wire import HOST, HastyProtocol, connect, drip, exchange, posted, predicting, read_answer
from tests.bounds import HANG
from tests.live_server import RunningServer

POST = b"POST /v1/predict HTTP/1.1\r\n" + HOST
SIZED = POST + b"Content-Length: 90000\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW_HEADS = {
    "half a method": (b"PO", b""),
    "half a path": (b"POST /v1/pre", b""),
    "half a header": (POST + b"Content-Le", b""),
    "headers without end": (POST, b"X-Filler: x\r\n"),
    "a header without end": (POST + b"X-Filler: ", b"x"),
    "a path without end": (b"GET /", b"x"),
    "empty lines": (b"\r\n", b"\r\n"),
}
SLOW_BODIES = {
    "no body": (SIZED, b""),
    "half a body": (SIZED + b'{"model": ', b""),
    "a body that drips": (SIZED, b" "),
    "no chunk": (CHUNKED, b""),
    "half a chunk": (CHUNKED + b"ff\r\n{", b""),
    "chunks that drip": (CHUNKED, b"1\r\n \r\n"),
    "an upload": (
        b"POST /v1/adapters HTTP/1.1\r\n" + HOST + b"Content-Type: multipart/form-data; boundary=x\r\n"
        b"Content-Length: 90000\r\n\r\n--x\r\n",
        b"",
    ),
    "a path of nobody": (b"POST /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 90000\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", SLOW_HEADS)
def test_a_head_that_does_not_arrive_is_408(attacked: RunningServer, name: str) -> None:
    begin, more = SLOW_HEADS[name]
    with connect(attacked.url, hasty=True) as connection:
        connection.sendall(begin)
        answer = drip(connection, more)
        assert answer is not None
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert connection.recv(1) == b""


@pytest.mark.parametrize("name", SLOW_BODIES)
def test_a_body_that_does_not_arrive_is_408_or_has_its_answer_before(attacked: RunningServer, name: str) -> None:
    begin, more = SLOW_BODIES[name]
    with connect(attacked.url, hasty=True) as connection:
        connection.sendall(begin)
        answer = drip(connection, more)
        assert answer is not None
        if name == "a path of nobody":
            assert answer.status == 404
        else:
            assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert drip(connection, more) is None


@pytest.mark.parametrize("requests", [0, 1])
def test_a_connection_without_a_request_is_closed_in_silence(attacked: RunningServer, requests: int) -> None:
    with connect(attacked.url, hasty=True) as connection:
        for _ in range(requests):
            connection.sendall(predicting())
            answer = read_answer(connection)
            assert answer is not None
            assert answer.status == 200
        assert connection.recv(1) == b""


def test_a_client_that_does_not_read_its_answer_loses_its_connection(attacked: RunningServer) -> None:
    body = json.dumps({"model": "foundation", "input": ["slow"] * 1024}).encode()
    for closing in ((), ("Connection: close",)):
        with connect(attacked.url, hasty=True, receive_bytes=4096) as connection:
            connection.sendall(posted("/v1/embeddings", body, *closing))
            assert HastyProtocol.hasty[connection.getsockname()[1]].wait(HANG)
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                read_answer(connection)


def test_a_flood_of_heads_closes_the_flood_s_own_connections_first(
    attacked: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 40)
    filler = b"X-Filler: " + b"x" * (MAX_HEAD_BYTES // 2)
    with ExitStack() as stack:
        flood = []
        for _ in range(300):
            connection = stack.enter_context(connect(attacked.url))
            connection.sendall(POST + filler)
            flood.append(connection)
            if len(flood) % 50 == 0:
                assert exchange(attacked.url, predicting()).status == 200
        closed = sum(bool(select.select([connection], [], [], 0)[0]) for connection in flood)
        assert closed >= 300 - 40


def test_a_flood_of_bodies_makes_room_for_whole_requests(
    attacked: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 40)
    with ExitStack() as stack:
        for i in range(1, 201):
            stack.enter_context(connect(attacked.url)).sendall(SIZED + b"{")
            if i % 10 == 0:  # the clients beside the flood have their turn
                assert exchange(attacked.url, predicting()).status == 200


def test_a_server_whose_connections_all_have_requests_says_so(
    serve: Callable[..., RunningServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    monkeypatch.setattr(protocol, "most_connections", lambda: 0)
    answer = exchange(running.url)
    assert (answer.status, answer.error["code"]) == (503, "too_many_connections")
    assert answer.headers["retry-after"] == "1"


def test_requests_without_end_and_without_waiting_are_cut_off(attacked: RunningServer) -> None:
    request = b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n"
    with connect(attacked.url) as connection:
        connection.sendall(request * 10)
        received = b""
        while received.count(b"HTTP/1.1 200 ") < 10:
            received += connection.recv(2**16)
    with connect(attacked.url) as connection:
        connection.sendall(predicting() + request * (2 * MAX_PIPELINED))
        received = b""
        with suppress(ConnectionError):
            while part := connection.recv(2**16):
                received += part
    assert received.count(b"HTTP/1.1 ") <= MAX_PIPELINED


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/adapters", "/embed", "/v2/embed", "/invocations"])
def test_chunks_over_the_limit_of_a_body_are_413_while_they_arrive(attacked: RunningServer, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n".encode()
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" if path == "/v1/adapters" else b"\r\n"
    begin = b'--x\r\nContent-Disposition: form-data; name="bundle"; filename="a.zip"\r\n\r\n'
    chunk = b"10000\r\n" + b"x" * 2**16 + b"\r\n"
    with connect(attacked.url) as connection:
        connection.sendall(head + kind + b"%x\r\n" % len(begin) + begin + b"\r\n")
        answer = drip(connection, chunk, seconds=0)
    # A client that sends on after the answer may find its connection reset before it reads.
    assert answer is None or (answer.status, answer.error["code"]) == (413, "body_too_large")
