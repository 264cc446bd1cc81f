"""The headers of every answer that tell a browser what it may do with it."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

RawHeaders = list[tuple[bytes, bytes]]

# An answer is data, which no page shows, frames, embeds or keeps. A page and its files state other values. The
# resource policy concerns answers that a page embeds and not those that a listed origin fetches, so the CORS
# headers of those still hold.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


def with_security_headers(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return headers of an answer, whose names are in lower case, with each of these that they lack."""
    given = list(headers)
    names = {name for name, _ in given}
    return [*given, *(header for header in _HEADERS if header[0] not in names)]


class SecurityHeaders:
    """ASGI middleware that adds these headers to every answer of the app, those of other middleware included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to the start of its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = with_security_headers(message.get("headers", ()))
            await send(message)

        await self.app(scope, receive, send_with_headers)
