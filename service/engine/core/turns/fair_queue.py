"""Order the work of many flows, such as tenants and adapters, by the tokens that each has run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from rootstock.service.engine.core.work import Work

W = TypeVar("W", bound=Work)
Test = Callable[[W], bool]
# Maps a unit of work to its flow and to that flow's price of a token in virtual time.
Level = Callable[[W], tuple[Hashable, int]]


class Flow(ABC, Generic[W]):
    """A queue with a share of the tokens that run. `tag` is the virtual time that its tokens have used.

    `start` is the virtual time of the turn of its first row. It stays the same until that row is served, however
    many later rows are served before it. The turn of the first row therefore always comes.
    """

    def __init__(self, name: Hashable = None, price: int = 1) -> None:
        self.name = name
        self.price = price
        self.start = self.tag = self.arrival = 0
        # The number of rows that wait.
        self.size = 0
        # The first row that the current draw pulled from this flow.
        self.foremost: W | None = None
        # True if no other flow waits at this level or above.
        self.alone = True

    @abstractmethod
    def __iter__(self) -> Iterator[W]: ...

    @abstractmethod
    def put(self, row: W, front: bool = False) -> None:
        """Add a row behind all others of its flow, or before them if it goes on with work that it began."""

    @abstractmethod
    def pull(self, is_gone: Test[W], has_slot: Test[W]) -> W | None:
        """Remove and return the row whose turn is next, or None if no row can be served now."""

    @abstractmethod
    def back(self, row: W) -> None:
        """Put an unserved row back in its position. Rows go back in the reverse order of their pulls."""

    @abstractmethod
    def serve(self, row: W) -> None:
        """Serve a pulled row. Call it after every unserved row is back."""

    @abstractmethod
    def purge(self, is_gone: Test[W]) -> None:
        """Drop every row that is gone, anywhere in the queue."""

    def close(self) -> None:
        """End the draw."""
        self.foremost = None


class Fifo(Flow[W]):
    """The queue of one adapter's rows at one priority: first in, first out."""

    def __init__(self, name: Hashable, price: int) -> None:
        super().__init__(name, price)
        self._rows: deque[W] = deque()

    def __iter__(self) -> Iterator[W]:
        return iter(self._rows)

    def put(self, row: W, front: bool = False) -> None:
        if front:
            self._rows.appendleft(row)
        else:
            self._rows.append(row)
        self.size += 1

    def pull(self, is_gone: Test[W], has_slot: Test[W]) -> W | None:
        while self._rows and is_gone(self._rows[0]):
            self._rows.popleft()
        row = self._rows.popleft() if self._rows and has_slot(self._rows[0]) else None
        self.size = len(self._rows)
        return row

    def back(self, row: W) -> None:
        self._rows.appendleft(row)
        self.size += 1

    def serve(self, row: W) -> None:
        pass

    def purge(self, is_gone: Test[W]) -> None:
        self._rows = deque(row for row in self._rows if not is_gone(row))
        self.size = len(self._rows)


Entry = tuple[int, int, Flow[W]]


class FairQueue(Flow[W]):
    """A queue of flows that take turns: the flow with the least `start` comes first. Levels nest.

    It measures tokens run against tokens due, as deficit round robin does (Shreedhar and Varghese 1996), but in
    virtual time, so that a new flow need not wait for a whole round. Each token that runs advances its flow's tag
    by the flow's price. A new flow starts at `now`, or at its own tag if that is later. `now` lies just before
    the turn of the first waiting flow, and never before the end of the previous row's turn (as in self-clocked
    fair queueing, Golestani 1994). An endless stream of new flows therefore cannot keep a turn from coming.

    A draw pulls rows in order with `pull`, returns the unserved ones with `back`, serves the others with `serve`,
    and ends with `close`. It reaches at most `horizon` beyond the first flow, unless no other flow waits. The
    tags of waiting flows therefore lie within `horizon` and two rows of each other, except for flows that could
    not be served. The time of a draw grows with the rows that it pulls, not with the flows that wait.
    """

    def __init__(self, levels: Sequence[Level[W]], horizon: int, name: Hashable = None, price: int = 1) -> None:
        super().__init__(name, price)
        self.now = 0
        self._level, *self._below = levels
        self._horizon = horizon
        self._flows: dict[Hashable, Flow[W]] = {}
        self._arrivals = count()
        # A heap of all flows, each at its start, or at its tag if it was empty. The entry of a flow that was
        # empty and has rows again is too early: it is stale.
        self._order: list[Entry[W]] = []
        # The current draw: the flows that it took from the heap, those of them that have rows but none that can
        # be served, a heap of the flows to pull from next, the first row, and the virtual time at which it began.
        self._touched: list[Flow[W]] = []
        self._blocked: list[Flow[W]] = []
        self._drawn: list[Entry[W]] = []
        self._first: W | None = None
        self._from = 0

    def __iter__(self) -> Iterator[W]:
        for flow in self._flows.values():
            yield from flow

    def put(self, row: W, front: bool = False) -> None:
        name, price = self._level(row)
        flow = self._flows.get(name)
        new = flow is None
        if flow is None:
            flow = FairQueue(self._below, self._horizon, name, price) if self._below else Fifo(name, price)
        if not flow.size:
            flow.start = flow.tag = max(flow.tag, self.now)
            flow.arrival = next(self._arrivals)
        flow.put(row, front)
        self.size += 1
        if new:
            self._flows[name] = flow
            heappush(self._order, (flow.start, flow.arrival, flow))

    def pull(self, is_gone: Test[W], has_slot: Test[W]) -> W | None:
        while (entry := self._next()) is not None:
            at, _, flow = entry
            size = flow.size
            flow.alone = self._only(flow)
            row = flow.pull(is_gone, has_slot)
            self.size += flow.size - size
            if row is None:
                if flow.foremost is None and flow.size:
                    self._blocked.append(self._touched.pop())
                continue
            flow.tag += flow.price * row.cost
            heappush(self._drawn, (flow.tag, flow.arrival, flow))
            if flow.foremost is None:
                flow.foremost = row
            if self._first is None:
                self._first, self._from = row, at
            return row
        return None

    def back(self, row: W) -> None:
        flow = self._flows[self._level(row)[0]]
        flow.tag -= flow.price * row.cost
        flow.back(row)
        self.size += 1

    def serve(self, row: W) -> None:
        flow = self._flows[self._level(row)[0]]
        flow.serve(row)
        if flow.foremost is row:
            flow.start = flow.tag
        if self._first is row:
            self.now = max(self.now, self._from + flow.price * row.cost)

    def purge(self, is_gone: Test[W]) -> None:
        for flow in self._flows.values():
            flow.purge(is_gone)
        self.size = sum(flow.size for flow in self._flows.values())

    def close(self) -> None:
        super().close()
        for flow in self._touched:
            flow.close()
            self._stand(flow)
        self._move_on()
        for flow in self._blocked:
            flow.close()
            self._stand(flow)
        for parts in (self._touched, self._blocked, self._drawn):
            parts.clear()
        self._first = None

    def _next(self) -> Entry[W] | None:
        """Return the entry of the flow to pull from next.

        Return None if it is beyond the horizon and not alone.
        """
        while self._order or self._drawn:
            if self._drawn and (not self._order or self._drawn[0] < self._order[0]):
                entry = heappop(self._drawn)
            else:
                at, arrival, flow = heappop(self._order)
                if _stale(at, arrival, flow):
                    self._stand(flow)
                    continue
                self._touched.append(flow)
                if not flow.size:
                    continue
                # A flow that could not be served for a long time must not take every turn once it can be.
                flow.start = max(flow.start, self.now - self._horizon)
                flow.tag = max(flow.tag, flow.start)
                entry = (flow.start, arrival, flow)
            if self._first is not None and entry[0] > self._from + self._horizon and not self._only(entry[2]):
                return None
            return entry
        return None

    def _only(self, flow: Flow[W]) -> bool:
        """Tell whether no other flow has rows, at this level or above. Such a flow gets ahead of no other."""
        return self.alone and len(self._touched) == 1 and self.size == flow.size

    def _stand(self, flow: Flow[W]) -> None:
        heappush(self._order, (flow.start if flow.size else flow.tag, flow.arrival, flow))

    def _move_on(self) -> None:
        """Advance `now` to the next turn, or to the latest tag if no flow waits.

        Forget empty flows that it passed.

        An empty flow whose tag is later than `now` stays, so that it gains nothing by leaving the queue for a
        time.
        """
        empty = []
        while self._order:
            at, arrival, flow = self._order[0]
            if flow.size and not _stale(at, arrival, flow):
                self.now = max(self.now, at - 1)
                break
            heappop(self._order)
            if flow.size:
                self._stand(flow)
            else:
                empty.append(flow)
        else:
            if not self._blocked:
                self.now = max([self.now, *(flow.tag for flow in empty)])
        for flow in empty:
            if flow.tag > self.now:
                self._stand(flow)
            else:
                del self._flows[flow.name]


def _stale(at: int, arrival: int, flow: Flow[W]) -> bool:
    """Tell whether the flow was empty when this entry was made and has got rows since."""
    return flow.size > 0 and (at, arrival) < (flow.start, flow.arrival)
