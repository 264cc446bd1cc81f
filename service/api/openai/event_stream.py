"""An answer of server-sent events, as OpenAI's API streams them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from rootstock.service.api.errors import ErrorAnswer, fault_detail

DONE = "data: [DONE]\n\n"


class EventStream(StreamingResponse):
    """A stream of events, each a JSON object. `held` is closed when the stream ends or its client leaves.

    An error in the middle becomes an event with the usual shape of an error, because the status has been sent.
    """

    def __init__(self, events: AsyncIterator[BaseModel], held: AsyncExitStack, path: str) -> None:
        super().__init__(
            _lines(events, path), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        async with self._held:
            await super().__call__(scope, receive, send)


async def _lines(events: AsyncIterator[BaseModel], path: str) -> AsyncIterator[str]:
    try:
        async for event in events:
            yield f"data: {event.model_dump_json(exclude_unset=True)}\n\n"
    except asyncio.CancelledError:
        raise
    except Exception as error:  # every error has the one shape
        yield f"data: {ErrorAnswer(error=fault_detail(path, error)[1]).model_dump_json()}\n\n"
    yield DONE
