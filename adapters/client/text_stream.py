"""A generated text that arrives in pieces, as server-sent events of OpenAI's routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from rootstock.adapters.client.errors import (
    Misused,
    Unreachable,
    Unreadable,
    stated_error,
    unreachable,
)

if TYPE_CHECKING:
    import httpx

_DATA = b"data:"
_END = b"[DONE]"
# The status that an error of the stream would have had before the stream began. Any other error is a fault, 500.
_STATUS = {"deadline_exceeded": 504, "draining": 503, "overloaded": 429}


class StreamedText:
    """The facts that the events of a stream have stated so far; None for what they have not stated.

    `digest` and `version` say what answers. `finish_reason` is `stop`, `length` or `tool_calls`.
    """

    def __init__(self, response: httpx.Response, url: str, timeout: float) -> None:
        self.digest: str | None = None
        self.version: int | None = None
        self.finish_reason: str | None = None
        self._response = response
        self._url = url
        self._timeout = timeout
        self._rest = b""
        self._complete = False

    def _pieces(self, received: bytes) -> Iterator[str]:
        """Yield the texts in the lines that end in these bytes, and keep the rest for the next bytes.

        A line of server-sent events ends at a line feed. httpx's `iter_lines` also ends one at U+0085, U+2028 and
        U+2029, which JSON may hold.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        yield from filter(None, map(self._piece, lines))

    def _piece(self, line: bytes) -> str:
        """Return the text in a line of the stream, which may be empty. Raise Refused if it states an error."""
        if not line.startswith(_DATA):
            return ""
        data = line.removeprefix(_DATA).strip()
        if data == _END:
            self._complete = True
            return ""
        try:
            return self._text(json.loads(data))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise Unreadable(f"{self._url} streams another answer than Rootstock's ({error!r})") from error

    def _text(self, event: Any) -> str:
        status = _STATUS.get(str((event.get("error") or {}).get("code")), 500)
        if (error := stated_error(event, status, self._response.headers.get("X-Request-Id"))) is not None:
            raise error
        self.digest, self.version = event["digest"], event["version"]
        text = ""
        for choice in event["choices"]:
            text += (choice["delta"].get("content") if "delta" in choice else choice["text"]) or ""
            self.finish_reason = choice["finish_reason"] or self.finish_reason
        return text

    def _check_unread(self) -> None:
        if self._response.is_stream_consumed or self._response.is_closed:
            raise Misused("the text was read or closed before; keep its pieces in a list, or ask again")

    def _check_end(self) -> None:
        if not self._complete:
            raise Unreachable(f"the connection to {self._url} broke off before the text was complete")


class TextPieces(StreamedText):
    """An iterator over the pieces of a text. Iterate once, or close it, so that the connection is free again."""

    def __iter__(self) -> Iterator[str]:
        self._check_unread()
        try:
            with unreachable(self._url, self._timeout):
                for received in self._response.iter_bytes():
                    yield from self._pieces(received)
            self._check_end()
        finally:
            self.close()

    def close(self) -> None:
        """End the stream; the server then stops to compute its text."""
        self._response.close()


class AsyncTextPieces(StreamedText):
    """An asynchronous iterator over the pieces of a text. Iterate once, or close it."""

    async def __aiter__(self) -> AsyncIterator[str]:
        self._check_unread()
        try:
            with unreachable(self._url, self._timeout):
                async for received in self._response.aiter_bytes():
                    for piece in self._pieces(received):
                        yield piece
            self._check_end()
        finally:
            await self.close()

    async def close(self) -> None:
        """End the stream; the server then stops to compute its text."""
        await self._response.aclose()
