"""A chat's answer that comes as server-sent events, with the time of each event."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, NamedTuple, Protocol

_DONE = b"[DONE]"


class BrokenStream(Exception):
    """A stream that breaks off, reports an error, or holds an event that no chat has."""


class LineSource(Protocol):
    """A response's body that is read line by line as it arrives."""

    def readline(self, sep: bytes) -> bytes:
        """Return the next line with its separator; nothing at the end of the body."""
        ...


class StreamedEvent(NamedTuple):
    """The data of a server-sent event, and the time of the monotonic clock at which it came."""

    at: float
    data: bytes


class ChatIdentity(NamedTuple):
    """The adapter that an answer names: reference, digest, version."""

    model: str
    digest: str | None
    version: int | None


@dataclass(frozen=True)
class ChatAnswer:
    """A chat's answer: its text, its number of tokens, the times of its pieces of text, and that of its end.

    `identities` are the adapters that its events name: one, unless the server mixes answers. `tokens` is the
    server's count, or 0 if the server gives none.
    """

    text: str
    tokens: int
    times: Sequence[float]
    end: float
    identities: frozenset[ChatIdentity]

    @property
    def first(self) -> float:
        """Return the time of the first piece; that of the end for an answer without text."""
        return self.times[0] if self.times else self.end


def events_of(body: LineSource) -> Iterator[StreamedEvent]:
    """Yield the events of a body as they come, without the last one, `[DONE]`.

    Raise BrokenStream if the connection breaks, or if the body ends before `[DONE]`.
    """
    done = False
    try:
        # The rest of the body is read too, so that the connection can be used again.
        while line := body.readline(b"\n"):
            at = time.monotonic()
            if line.startswith(b"data:"):
                data = bytes(line[5:].strip())
                done = data == _DONE
                if not done:
                    yield StreamedEvent(at, data)
    except (OSError, HTTPException) as error:
        raise BrokenStream(f"the connection broke: {error!r}") from None
    if not done:
        raise BrokenStream("the stream ended without [DONE]")


def chat_answer(events: Sequence[StreamedEvent]) -> ChatAnswer:
    """Return the answer in the events of one stream. The event with the reason of its end is its end.

    Raise BrokenStream if an event is an error or no part of a chat, or if the answer has no end.
    """
    text, tokens, end = "", 0, None
    times: list[float] = []
    identities = set()
    for event in events:
        try:
            chunk: Any = json.loads(event.data)
            if (error := chunk.get("error")) is not None:
                raise BrokenStream(f"the stream reports an error: {error}")
            identities.add(ChatIdentity(chunk["model"], chunk.get("digest"), chunk.get("version")))
            tokens = int((chunk.get("usage") or {}).get("completion_tokens", tokens))
            for choice in chunk["choices"]:
                if piece := choice["delta"].get("content"):
                    text += piece
                    times.append(event.at)
                if choice.get("finish_reason") is not None:
                    end = event.at
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenStream(f"an event is no part of a chat ({error!r}): {event.data[:200]!r}") from None
    if end is None:
        raise BrokenStream(f"the answer has no end after {len(times)} pieces")
    return ChatAnswer(text, tokens, times, end, frozenset(identities))
