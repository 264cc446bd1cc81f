"""An answer of server-sent events, as OpenAI's API streams them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from rootstock.service.api.errors import ErrorAnswer, fault_detail

DONE = "data: [DONE]\n\n"
# The form of one event.
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "description": "A JSON object: a part of the answer, or an error. OpenAI's form ends with `[DONE]`.",
        }
    },
}
# The `responses` of a route that may stream.
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}


class EventStream(StreamingResponse):
    """A stream of events, each a JSON object. `held` is closed when the stream ends or its client leaves.

    A client that reads too slowly to take the stream in `within` seconds loses the connection.

    An error in the middle becomes an event with the usual shape of an error, because the status has been sent.
    """

    # The text behind the last event.
    end: ClassVar[str] = DONE

    def __init__(self, events: AsyncIterator[BaseModel], held: AsyncExitStack, path: str, within: float) -> None:
        super().__init__(
            _lines(events, path, self.end),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache"},
        )
        self._held = held
        self._within = within

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        # The server closes the connection of a response that ends early.
        with suppress(TimeoutError):
            async with self._held, asyncio.timeout(self._within):
                await super().__call__(scope, receive, send)


async def _lines(events: AsyncIterator[BaseModel], path: str, end: str) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield f"data: {event.model_dump_json(exclude_unset=True)}\n\n"
    except asyncio.CancelledError:
        raise
    except Exception as error:  # every error has the one shape
        yield f"data: {ErrorAnswer(error=fault_detail(path, error)[1]).model_dump_json()}\n\n"
    if end:
        yield end
