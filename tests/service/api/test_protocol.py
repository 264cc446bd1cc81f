"""The timers of a connection, whose time passes here only as the test says."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from rootstock.service.api.connection import protocol
from rootstock.service.api.connection.protocol import PROGRESS_BYTES, BoundedHeadProtocol
from rootstock.service.api.connection.waiting_clients import MOST_CONNECTIONS, most_connections

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Task:
    def add_done_callback(self, callback: Callable[..., Any]) -> None:
        """Never done."""


class ManualLoop:
    """The part of an event loop that a protocol uses. It runs no task, and a timer only in `pass_time`."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> Timer:
        self.timers.append(Timer(lambda: call(*arguments)))
        return self.timers[-1]

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> Task:
        coroutine.close()
        return Task()

    def pass_time(self) -> None:
        """Let every timer end that runs now."""
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.cancelled:
                timer.call()


class MemoryTransport:
    """A transport that keeps what is written. `unsent` is what its client has not read."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.closing = self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else None

    def write(self, data: bytes) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Opened:
    """A connection of the protocol to no client."""

    def __init__(self, server: ServerState | None = None) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None: ...

        self.loop = ManualLoop()
        self.transport = MemoryTransport()
        state = server or ServerState()
        self.protocol = BoundedHeadProtocol(Config(app), state, {}, self.loop)  # type: ignore[arg-type]
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    def answer(self) -> None:
        """Answer the request that has arrived."""
        self.protocol.cycle.response_complete = True
        self.protocol.on_response_complete()

    def receive(self, data: bytes) -> None:
        self.protocol.data_received(data)


@pytest.fixture
def opened() -> Opened:
    return Opened()


def test_a_body_that_arrives_slowly_and_steadily_has_all_the_time(opened: Opened) -> None:
    opened.receive(HEAD)
    for _ in range(50):
        opened.receive(b"x" * PROGRESS_BYTES)
        opened.protocol.cycle.body.clear()  # as if the app had read it
        opened.loop.pass_time()
    assert not opened.transport.closing
    opened.receive(b"x" * (PROGRESS_BYTES - 1))
    opened.loop.pass_time()
    assert opened.transport.closing
    assert opened.transport.written.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_the_server_does_not_read_is_not_the_client_s_fault(opened: Opened) -> None:
    opened.receive(HEAD + b"x" * 2**17)
    assert opened.protocol.flow.read_paused
    for _ in range(3):
        opened.loop.pass_time()
    assert not opened.transport.closing


def test_the_time_of_a_head_does_not_begin_again_with_each_byte(opened: Opened) -> None:
    opened.receive(HEAD[:9])
    opened.receive(HEAD[9:20])
    opened.loop.pass_time()
    assert opened.transport.written.startswith(b"HTTP/1.1 408 ")


def test_a_whole_request_stops_the_timers_while_it_is_computed(opened: Opened) -> None:
    opened.receive(GET)
    opened.loop.pass_time()
    opened.receive(b"GET / HT")  # the next one begins and waits for the answer to the first
    opened.loop.pass_time()
    assert not opened.transport.closing


def test_a_client_that_reads_slowly_and_steadily_has_all_the_time(opened: Opened) -> None:
    opened.receive(GET)
    opened.transport.unsent = 100 * PROGRESS_BYTES
    opened.protocol.pause_writing()
    for _ in range(50):
        opened.transport.unsent -= PROGRESS_BYTES
        opened.loop.pass_time()
    assert not opened.transport.closing
    opened.transport.unsent -= 1
    opened.loop.pass_time()
    assert opened.transport.aborted


def test_a_client_that_has_read_everything_may_be_idle_as_any_other(opened: Opened) -> None:
    opened.receive(GET)
    opened.transport.unsent = 100
    opened.protocol.pause_writing()
    opened.protocol.resume_writing()
    opened.loop.pass_time()
    assert not opened.transport.closing


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD + b"x"])
def test_a_flood_closes_its_own_connections_before_a_client_that_has_just_read_an_answer(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 10)
    bodies = sent.startswith(HEAD)
    server = ServerState()
    client, upload = Opened(server), Opened(server)
    client.receive(GET)
    upload.receive(HEAD)
    flood = []
    for i in range(50):
        if i == 9:
            client.answer()
        flood.append(Opened(server))
        if sent:
            flood[-1].receive(sent)
        if i == (14 if bodies else 40):
            client.receive(GET)
    assert not client.transport.closing
    assert upload.transport.closing == bodies  # among bodies the oldest goes first, whoever sends it
    assert sum(one.transport.closing for one in flood) >= 40


@pytest.mark.parametrize(
    ("files", "most"), [(1024, 768), (100, 64), (10**6, MOST_CONNECTIONS), (-1, MOST_CONNECTIONS)]
)
def test_the_connections_leave_files_for_the_rest_of_the_server(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (files, files))
    assert most_connections() == most
