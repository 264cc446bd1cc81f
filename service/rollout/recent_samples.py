"""The newest numbers of a series, with their times, in memory of a fixed size."""

from __future__ import annotations

from array import array

from rootstock.adapters.registry.rollout_records import MAX_REQUESTS


class RecentSamples:
    """The newest numbers that were added, at most `most`, each with its time in seconds on one clock."""

    __slots__ = ("_added", "_most", "_times", "_values")

    def __init__(self, most: int = MAX_REQUESTS) -> None:
        self._most = most
        self._times = array("d")
        self._values = array("d")
        self._added = 0

    def add(self, at: float, value: float) -> None:
        """Add a number at a time that is no earlier than the last."""
        if len(self._times) < self._most:
            self._times.append(at)
            self._values.append(value)
        else:
            place = self._added % self._most
            self._times[place], self._values[place] = at, value
        self._added += 1

    def since(self, at: float) -> list[float]:
        """Return the numbers that were added at this time or later, in no order."""
        return [value for time, value in zip(self._times, self._values, strict=True) if time >= at]
