"""Which versions of an adapter may answer a request, from when it was sent to when it was answered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class _Span:
    """A digest that may be live: from when the move to it was sent until the next move was answered."""

    digest: str
    start: float
    end: float = math.inf


class Ledger:
    """The spans of every name. Times are of one monotonic clock, in seconds.

    What a client can know: a version may answer from the moment that the move to it is sent, and the one before
    may until the move is answered. A move that fails leaves both open.
    """

    def __init__(self, live: Mapping[str, str]) -> None:
        """`live`: the digest of each name at the start."""
        self._spans = {name: [_Span(digest, -math.inf)] for name, digest in live.items()}

    def sent(self, name: str, digest: str, at: float) -> None:
        """A move of `name` to `digest` goes out."""
        self._spans.setdefault(name, []).append(_Span(digest, at))

    def answered(self, name: str, at: float) -> None:
        """The move sent last is done: whatever was live before it is not any more."""
        for span in self._spans[name][:-1]:
            span.end = min(span.end, at)

    def live(self, name: str, start: float, end: float) -> set[str]:
        """The digests that may answer a request sent at `start` and answered at `end`."""
        return {s.digest for s in self._spans.get(name, ()) if s.start <= end and s.end >= start}

    def latest(self, name: str) -> str:
        """The digest that the last move went to."""
        return self._spans[name][-1].digest

    def earlier(self, name: str) -> str:
        """The digest that was live before the last move to another; the same where there was none."""
        latest = self.latest(name)
        return next((s.digest for s in reversed(self._spans[name]) if s.digest != latest), latest)
