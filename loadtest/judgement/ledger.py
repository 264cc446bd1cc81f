"""The versions of an adapter that may answer a request between its sending and its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class _Span:
    """A digest that may be live, from the sending of its move until the answer to the next move."""

    digest: str
    start: float
    end: float = math.inf


class Ledger:
    """The versions of every name that may answer, with their spans in seconds of one monotonic clock.

    A version may answer from the moment that the move to it is sent. The version before may answer until the move
    is answered. After a failed move both may answer.
    """

    def __init__(self, live: Mapping[str, str]) -> None:
        """Start with the digest of each name in `live`."""
        self._spans = {name: [_Span(digest, -math.inf)] for name, digest in live.items()}

    def sent(self, name: str, digest: str, at: float) -> None:
        """Record that a move of `name` to `digest` was sent."""
        self._spans.setdefault(name, []).append(_Span(digest, at))

    def answered(self, name: str, at: float) -> None:
        """Record that the last move was answered. Earlier versions are no longer live."""
        for span in self._spans[name][:-1]:
            span.end = min(span.end, at)

    def live(self, name: str, start: float, end: float) -> set[str]:
        """Return the digests that may answer a request sent at `start` and answered at `end`."""
        return {s.digest for s in self._spans.get(name, ()) if s.start <= end and s.end >= start}

    def latest(self, name: str) -> str:
        """Return the digest of the last move."""
        return self._spans[name][-1].digest

    def earlier(self, name: str) -> str:
        """Return the digest that was live before the last move to another, else the last move's."""
        latest = self.latest(name)
        return next((s.digest for s in reversed(self._spans[name]) if s.digest != latest), latest)
