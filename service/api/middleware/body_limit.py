"""The limit on a request's body: the bytes are counted while they arrive, and too many are answered with 413."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope

from rootstock.service.api.compat.inference_protocol.plain_error import in_form_of
from rootstock.service.api.errors import error_response
from rootstock.service.api.middleware.response_headers import ResponseHeaders

# Reading on for a while after a 413 lets the client read the answer instead of a reset.
_DRAIN_SECONDS = 5.0
_DRAIN_BYTES = 64 * 2**20


class BodyTooLarge(Exception):
    """A request whose body has passed the limit while the app read it."""


class BodyLimit:
    """The receiving side of one request: raises BodyTooLarge once more than `limit` bytes have arrived.

    `setting` names the setting of the limit.
    """

    def __init__(self, limit: int, setting: str, receive: Receive, response: ResponseHeaders) -> None:
        self.limit = limit
        self._setting = setting
        self.received = 0
        self.exceeded = False
        self._receive = receive
        self._response = response

    async def receive(self) -> Message:
        """Return the next message of the request. Raise BodyTooLarge past the limit."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            if self.received > self.limit:
                self.exceeded = True
                raise BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the app's response, unless the app answers a body that passed the limit."""
        if self.exceeded and not self._response.started:
            return  # FastAPI answers 400 for a body that it could not read; `refuse` answers instead.
        await self._response.send(message)

    async def refuse(self, scope: Scope, size: int) -> None:
        """Answer 413 for a body of at least `size` bytes, then read on for a while."""
        message = (
            f"the body has at least {size} bytes; the limit of this route is {self.limit} bytes "
            f"({self._setting}); send less, or raise the setting"
        )
        response = error_response(413, message, "body_too_large", headers={"Connection": "close"})
        await in_form_of(scope["path"], response)(scope, self._receive, self._response.send)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                drained = 0
                while drained < _DRAIN_BYTES:
                    received = await self._receive()
                    drained += len(received.get("body", b""))
                    if received["type"] != "http.request" or not received.get("more_body"):
                        return
        except TimeoutError:
            return
