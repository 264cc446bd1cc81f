"""The adapters with a label to themselves in the metrics: those with the most requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import nlargest

OTHER = "other"
# How much of the counts of one period goes over into the next: a request weighs half after seven periods.
_KEPT = 0.9
_PERIOD_S = 60.0
# Adapters whose traffic is about the same do not take labels from each other.
_MARGIN = 2.0
_FORGOTTEN = 0.01


class TrafficRanking:
    """At most `most` names with a label to themselves; all others share OTHER.

    The first ones to come are given labels; later `rank` gives them to names that have had `_MARGIN` times the
    requests of those that had them. An adapter that is itself named "other" is counted with the others. Used from
    one thread.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._ranked = clock()
        self._counts: dict[str, float] = {}
        self._named: set[str] = set()

    def label(self, name: str) -> str:
        """Return the label that one more request for `name` counts under."""
        self._counts[name] = self._counts.get(name, 0.0) + 1.0
        if name in self._named:
            return name
        if len(self._named) < self._most and name != OTHER:
            self._named.add(name)
            return name
        return OTHER

    def rank(self) -> list[str]:
        """Return the names that lose their label to others with more traffic, looked for once a period."""
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
        """Forget an adapter that is gone. Tell whether it had a label to itself."""
        self._counts.pop(name, None)
        had = name in self._named
        self._named.discard(name)
        return had
