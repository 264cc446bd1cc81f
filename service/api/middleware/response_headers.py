"""The headers that every response gets, and a note of the status that was sent."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Message, Scope, Send

from rootstock.service.references.splits import Chosen


class ResponseHeaders:
    """The sending side of one request: adds headers to the response and notes its status.

    The headers are X-Request-Id, those in `added` and, while the server is not ready, Connection: close. If
    splits chose one version, in `chosen`, X-Model-Version and X-Model-Digest state it. `status` is 499 until the
    response starts: the client left before it.
    """

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self.status = 499
        self.started = False
        self.added: Mapping[str, str] = {}
        self.chosen: Chosen = set()
        self._scope = scope
        self._send = send
        self._request_id = request_id

    async def send(self, message: Message) -> None:
        """Send a message of the response, its start with the headers added."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            added = [(b"x-request-id", self._request_id.encode("ascii"))]
            added += [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in self.added.items()]
            if len(self.chosen) == 1:
                ((version, digest),) = self.chosen
                added += [(b"x-model-version", b"%d" % version), (b"x-model-digest", digest.encode("ascii"))]
            if not self._scope["app"].state.server.ready:
                # The client closes the connection itself, before the server's stop resets it.
                added.append((b"connection", b"close"))
            message["headers"] = [*message.get("headers", []), *added]
        await self._send(message)
