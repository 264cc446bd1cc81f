"""The use of quotas that servers on one registry tell each other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from rootstock.adapters.registry.quota_port import QuotaUses, Use

_MINUTE = 60


class SharedUse:
    """The use of quotas by this server that others have not heard of, and by others that this one has counted.

    Any thread may call `note`; one at a time calls `exchange`.
    """

    def __init__(self, uses: QuotaUses, clock: Callable[[], float] = time.time) -> None:
        self._uses = uses
        self._clock = clock
        self._lock = threading.Lock()
        self._untold: Counter[Use] = Counter()
        self._told: Counter[tuple[Use, int]] = Counter()
        self._heard: Counter[tuple[Use, int]] = Counter()
        # The minute of the last exchange.
        self._exchanged_in: int | None = None

    def note(self, use: Use, amount: int) -> None:
        """Note what this server let someone spend."""
        with self._lock:
            self._untold[use] += amount

    def exchange(self) -> dict[Use, int]:
        """Tell the others what was noted, and return what they spent since the last exchange.

        A server that starts, or that has told nothing for a minute, counts what others spent in this minute. Of
        the minute before it counts the share that lies within the last 60 s, as if the use had been even. Raise
        RegistryUnavailable if the registry is away, or StoreFull if it has no room. After any error, what was
        noted is told the next time.
        """
        with self._lock:
            untold, self._untold = self._untold, Counter()
        now = self._clock()
        minute = int(now // _MINUTE)
        try:
            totals = self._uses.add(untold, minute)
        except BaseException:
            with self._lock:
                self._untold.update(untold)
            raise
        late = self._exchanged_in is None or self._exchanged_in < minute - 1
        self._exchanged_in = minute
        remaining = 1 - (now % _MINUTE) / _MINUTE
        for use, amount in untold.items():
            self._told[use, minute] += amount
        others: Counter[Use] = Counter()
        for place, total in totals.items():
            new = total - self._told[place] - self._heard[place]
            if new > 0:
                self._heard[place] += new
                others[place[0]] += round(new * remaining) if late and place[1] < minute else new
        for counts in (self._told, self._heard):
            for place in [place for place in counts if place not in totals]:
                del counts[place]
        return {use: amount for use, amount in others.items() if amount}
