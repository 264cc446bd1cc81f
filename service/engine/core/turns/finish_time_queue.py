"""Queue work in pieces, fairly: each piece waits about as long as it takes to run."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FinishTimeQueue(Generic[Item]):
    """A queue ordered by the virtual time at which each item would end if all shared one server.

    Source: Demers et al. 1989. A piece of small cost passes pieces of large cost, and no piece waits for ever.
    Pieces that cost `least` or less leave in the order in which they came. Only one thread may use it.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._now = 0.0
        self._order = count()
        self._heap: list[tuple[float, int, int, Item]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, item: Item, cost: int) -> None:
        """Add an item whose next piece has this cost."""
        end = self._now + max(cost, self._least)
        heappush(self._heap, (end, next(self._order), cost, item))

    def get(self) -> tuple[Item, int]:
        """Remove the item whose turn it is and return it with its cost."""
        _, _, cost, item = heappop(self._heap)
        self._now += max(cost, self._least) / (len(self._heap) + 1)
        return item, cost
