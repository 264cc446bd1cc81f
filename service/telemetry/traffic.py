"""The choice of the adapters with their own label in the metrics: those with the most requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import nlargest

OTHER = "other"
# The share of a count that each period keeps: a request weighs half after seven periods.
_KEPT = 0.9
_PERIOD_S = 60.0
# A name needs this many times the requests of another to take its label, so that similar ones do not alternate.
_MARGIN = 2.0
# Counts at or below this are dropped.
_FORGOTTEN = 0.01


class TrafficRanking:
    """The names with their own label, at most `most` of them; all others share OTHER.

    The first names get labels. Later, `rank` moves a label to a name that has `_MARGIN` times the requests. An
    adapter named "other" is counted with the others. Use it from one thread.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._ranked = clock()
        self._counts: dict[str, float] = {}
        self._named: set[str] = set()

    def label(self, name: str) -> str:
        """Count one more request for `name` and return its label."""
        self._counts[name] = self._counts.get(name, 0.0) + 1.0
        if name in self._named:
            return name
        if len(self._named) < self._most and name != OTHER:
            self._named.add(name)
            return name
        return OTHER

    def rank(self) -> list[str]:
        """Move labels to names with more traffic, once a period, and return the names that lose theirs."""
        now = self._clock()
        periods = int((now - self._ranked) / _PERIOD_S)
        if not periods:
            return []
        self._ranked += periods * _PERIOD_S
        kept = _KEPT**periods
        self._counts = {name: left for name, count in self._counts.items() if (left := count * kept) > _FORGOTTEN}
        rising = nlargest(
            self._most,
            ((count, name) for name, count in self._counts.items() if name not in self._named and name != OTHER),
        )
        falling = sorted((self._counts.get(name, 0.0), name) for name in self._named)
        lost = []
        for (more, riser), (less, faller) in zip(rising, falling, strict=False):
            if more < _MARGIN * less:
                break
            self._named.remove(faller)
            self._named.add(riser)
            lost.append(faller)
        return lost

    def forget(self, name: str) -> bool:
        """Forget a deleted adapter. Tell whether it had its own label."""
        self._counts.pop(name, None)
        had = name in self._named
        self._named.discard(name)
        return had
