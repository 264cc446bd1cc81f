"""Runs a real server over HTTP: the composition root's own parts, under uvicorn, in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from rootstock.service.api.connection.protocol import BoundedHeadProtocol
from rootstock.service.app import OpenServer, create_app
from rootstock.service.settings import Settings
from tests.bounds import HANG

# Keys of the settings, for tests: one that infers and reads, and one that does everything.
READER, OWNER = "reader-0123456789", "owner-0123456789"


class RunningServer:
    """A server that answers at `url`."""

    def __init__(self, url: str, app: Any) -> None:
        self.url = url
        self.app = app

    def client(self, key: str | None = None) -> httpx.Client:
        """Return a client of the server, which sends `key` as its bearer token."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=HANG)


@contextmanager
def run_server(
    settings: Settings,
    opened: OpenServer | None = None,
    protocol: type[BoundedHeadProtocol] = BoundedHeadProtocol,
    prepare: Callable[[FastAPI], None] | None = None,
) -> Iterator[RunningServer]:
    """Start a server on a free port, yield it once it has started, and stop it at the end.

    `prepare` changes the app before it starts.
    """
    app = create_app(settings, opened)
    if prepare is not None:
        prepare(app)
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio sets this only on sockets that name TCP as their protocol. Without it each answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(app, log_level="error", access_log=False, http=protocol, timeout_graceful_shutdown=10)
    server = uvicorn.Server(config)
    started = threading.Event()
    startup = server.startup

    async def announce(sockets: list[socket.socket] | None = None) -> None:
        try:
            await startup(sockets=sockets)
        finally:
            # A start that fails ends the thread, and nothing else would end the wait.
            started.set()

    server.startup = announce  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    assert started.wait(HANG)
    assert server.started, "the server did not start"
    try:
        yield RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
    finally:
        server.should_exit = True
        thread.join(HANG)
        listener.close()


def upload(client: httpx.Client, name: str, data: bytes, **fields: str) -> httpx.Response:
    """Upload a bundle's zip under a name, with further form fields, and return the response."""
    files = {"bundle": (f"{name}.zip", data, "application/zip")}
    return client.post("/v1/adapters", data={"name": name, **fields}, files=files)
