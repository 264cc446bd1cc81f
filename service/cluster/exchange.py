"""One request in the form that travels from the ingress to a replica, and the answer that travels back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Scope

RawHeaders = list[tuple[bytes, bytes]]
# The messages of an answer that wait for a slow client, before the route that writes them waits as well.
_MOST_WAITING = 16


class ForwardedRequest(NamedTuple):
    """A request with its whole body."""

    method: str
    scheme: str
    path: str
    raw_path: bytes
    query: bytes
    http_version: str
    headers: RawHeaders
    client: tuple[str, int] | None
    body: bytes

    @classmethod
    def of(cls, scope: Scope, body: bytes) -> ForwardedRequest:
        """Return the request of an ASGI scope, without the prefix under which the ingress is mounted."""
        prefix = scope.get("root_path", "")
        path = scope["path"].removeprefix(prefix) or "/"
        client = scope.get("client")
        return cls(
            scope["method"],
            scope.get("scheme", "http"),
            path,
            (scope.get("raw_path") or scope["path"].encode()).removeprefix(prefix.encode()) or b"/",
            scope.get("query_string", b""),
            scope.get("http_version", "1.1"),
            [(bytes(name), bytes(value)) for name, value in scope["headers"]],
            None if client is None else (str(client[0]), int(client[1])),
            body,
        )

    @property
    def scope(self) -> dict[str, Any]:
        """Return the request as an ASGI scope."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.http_version,
            "method": self.method,
            "scheme": self.scheme,
            "path": self.path,
            "raw_path": self.raw_path,
            "query_string": self.query,
            "root_path": "",
            "headers": self.headers,
            "client": self.client,
            "server": None,
            "state": {},
        }

    def header(self, name: bytes) -> str:
        """Return a header's value, empty if the request has none. `name` is in lower case."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")


class AnswerStart(NamedTuple):
    """The first message of an answer. `more` tells that pieces of the body follow, as bytes."""

    status: int
    headers: RawHeaders
    body: bytes
    more: bool


# The messages of an answer, in order: its start, and pieces of its body.
AnswerPart = AnswerStart | bytes


class Exchange:
    """One run of an ASGI app on a forwarded request."""

    def __init__(self, app: ASGIApp, request: ForwardedRequest) -> None:
        self._app = app
        self._request = request
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue(_MOST_WAITING)
        self._left = asyncio.Event()
        self._read = False

    async def parts(self) -> AsyncIterator[AnswerPart]:
        """Run the app, and yield its answer. If the caller stops early, the app sees that its client has left."""
        running = asyncio.create_task(self._run())
        try:
            message = await self._sent.get()
            while message is not None and message["type"] != "http.response.start":
                message = await self._sent.get()
            if message is None:
                await running
                return
            start = message
            message = await self._sent.get()
            body, more = (b"", False) if message is None else _body(message)
            yield AnswerStart(start["status"], [tuple(pair) for pair in start.get("headers", ())], body, more)
            while more and (message := await self._sent.get()) is not None:
                body, more = _body(message)
                if body:
                    yield body
            await running
        finally:
            self._left.set()
            if not running.done():
                # A route that waits for room to write never sees that its client has left.
                while not self._sent.empty():
                    self._sent.get_nowait()
                await asyncio.wait([running])

    async def _run(self) -> None:
        try:
            await self._app(self._request.scope, self._receive, self._send)
        finally:
            if not self._left.is_set():
                await self._sent.put(None)

    async def _receive(self) -> Message:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._left.is_set():
            # A route that writes without end has to let the task run that sees that its client has left.
            await asyncio.sleep(0)
        else:
            await self._sent.put(message)


def _body(message: Message) -> tuple[bytes, bool]:
    return bytes(message.get("body", b"")), bool(message.get("more_body", False))
