"""Requests byte by byte, as no HTTP client sends them, and the answers to them."""

from __future__ import annotations

import asyncio
import http.client
import json
import select
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rootstock.service.api.connection.protocol import BoundedHeadProtocol
from tests.bounds import HANG

HOST = b"Host: localhost\r\n"
PREDICT = {"model": "foundation", "inputs": "still here"}


class HastyProtocol(BoundedHeadProtocol):
    """The server's protocol with short times for the sockets of attacks, so that no test waits long.

    Other clients keep the usual times, however busy the machine is.
    """

    # By the port of such a socket: whether the server has closed its end.
    hasty: ClassVar[dict[int, threading.Event]] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if transport.get_extra_info("peername")[1] in self.hasty:
            self.head_seconds = self.body_seconds = self.read_seconds = 0.5
            self.idle_seconds = self.timeout_keep_alive = 1
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.client is not None and self.client[1] in self.hasty:
            self.hasty[self.client[1]].set()


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its headers by name in lower case, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error in the one shape. Every answer also has its id and the headers for browsers."""
        assert self.headers["x-request-id"]
        assert self.headers["x-content-type-options"] == "nosniff"
        assert self.headers["content-type"] == "application/json"
        value = json.loads(self.body)
        assert set(value) == {"error"}
        assert set(value["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = value["error"]
        assert 0 < len(error["message"]) < 1000
        return error


def connect(url: str, hasty: bool = False, receive_bytes: int | None = None) -> socket.socket:
    """Open a connection to a server; the times of a `hasty` one are short."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(HANG)
    if hasty:
        connection.bind(("127.0.0.1", 0))
        HastyProtocol.hasty[connection.getsockname()[1]] = threading.Event()
    connection.connect((host, int(port)))
    return connection


def read_answer(connection: socket.socket) -> Answer | None:
    """Return the next answer on a connection; None if the server closes it without one."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
    except (http.client.RemoteDisconnected, ConnectionError):
        return None
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def exchange(url: str, *parts: bytes) -> Answer:
    """Send bytes on a new connection and return the answer."""
    with connect(url) as connection:
        for part in parts:
            connection.sendall(part)
        answer = read_answer(connection)
    assert answer is not None, "the server closed the connection without an answer"
    return answer


def drip(connection: socket.socket, part: bytes, seconds: float = 0.05) -> Answer | None:
    """Send the same bytes every so often until the server answers or closes; return the answer."""
    while not select.select([connection], [], [], seconds)[0]:
        try:
            connection.sendall(part)
        except ConnectionError:
            break  # the answer may have come before
    return read_answer(connection)


def posted(path: str, body: bytes, *headers: str) -> bytes:
    """Return the bytes of a POST request."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(body)}", "", "")
    return "\r\n".join(lines).encode() + body


def predicting() -> bytes:
    """Return the bytes of a request that works."""
    return posted("/v1/predict", json.dumps(PREDICT).encode())
