"""Order the work of many tenants and adapters by the tokens that each has had."""

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
# The flow that a unit of work belongs to, and the price of a token to it in virtual time.
Level = Callable[[W], tuple[Hashable, int]]


class Flow(ABC, Generic[W]):
    """A claim on a share of the tokens that are run, in virtual time: `tag` counts what it has had.

    `start` is where the turn of its foremost row comes. It stands still until that row is served, however many
    later rows are served before it; so the foremost row's turn always comes.
    """

    def __init__(self, name: Hashable = None, price: int = 1) -> None:
        self.name = name
        self.price = price
        self.start = self.tag = self.arrival = 0
        # Rows that wait.
        self.size = 0
        # The first row of the draw under way.
        self.foremost: W | None = None
        # True if nothing else waits beside it, nor beside what holds it.
        self.alone = True

    @abstractmethod
    def __iter__(self) -> Iterator[W]: ...

    @abstractmethod
    def put(self, row: W) -> None:
        """Add a row behind all others."""

    @abstractmethod
    def pull(self, gone: Test[W], placed: Test[W]) -> W | None:
        """Remove the row whose turn is next; None where there is none that can be served now."""

    @abstractmethod
    def back(self, row: W) -> None:
        """Put back a pulled row that is not served, to where it stood. The last pulled comes first."""

    @abstractmethod
    def serve(self, row: W) -> None:
        """Serve a pulled row. Call it once all rows that are not served are back."""

    @abstractmethod
    def purge(self, gone: Test[W]) -> None:
        """Drop the rows that are gone, wherever they stand."""

    def close(self) -> None:
        """End the draw."""
        self.foremost = None


class Fifo(Flow[W]):
    """The rows of one adapter at one priority, first come first drawn."""

    def __init__(self, name: Hashable, price: int) -> None:
        super().__init__(name, price)
        self._rows: deque[W] = deque()

    def __iter__(self) -> Iterator[W]:
        return iter(self._rows)

    def put(self, row: W) -> None:
        self._rows.append(row)
        self.size += 1

    def pull(self, gone: Test[W], placed: Test[W]) -> W | None:
        while self._rows and gone(self._rows[0]):
            self._rows.popleft()
        row = self._rows.popleft() if self._rows and placed(self._rows[0]) else None
        self.size = len(self._rows)
        return row

    def back(self, row: W) -> None:
        self._rows.appendleft(row)
        self.size += 1

    def serve(self, row: W) -> None:
        pass

    def purge(self, gone: Test[W]) -> None:
        self._rows = deque(row for row in self._rows if not gone(row))
        self.size = len(self._rows)


Entry = tuple[int, int, Flow[W]]


class FairQueue(Flow[W]):
    """Flows that take turns: the one whose `start` is least comes first. Levels of them nest.

    Deficit round robin's measure, tokens had against tokens due (Shreedhar and Varghese 1996), kept as virtual
    time, so that a newcomer need not wait for a whole round: a token moves its flow's tag on by the flow's cost,
    and a flow that comes starts at `now`, or at its own tag if that is later. `now` is just before the turn of
    the flow that comes first of those that wait, and at least where the turn of the row before it ended (as in
    self-clocked fair queueing, Golestani 1994), so that newcomers without end do not keep a turn from coming.

    A draw is `pull` of rows in order, `back` of those that are not served, `serve` of the others, and `close`. It
    reaches no further than `horizon` beyond the flow that comes first, unless no other waits. So the tags of
    waiting flows lie within `horizon` and two rows of each other, except for flows that could not be
    served. A draw takes time for the rows that it pulls, not for the flows that wait.
    """

    def __init__(self, levels: Sequence[Level[W]], horizon: int, name: Hashable = None, price: int = 1) -> None:
        super().__init__(name, price)
        self.now = 0
        self._level, *self._below = levels
        self._horizon = horizon
        self._flows: dict[Hashable, Flow[W]] = {}
        self._arrivals = count()
        # Every flow at its start, an empty one at its tag; one that rows have come to since stands too early.
        self._order: list[Entry[W]] = []
        # Of the draw under way: the flows taken from there, those of them that have rows but none that can be
        # served, those to pull from next, and where the draw began.
        self._touched: list[Flow[W]] = []
        self._blocked: list[Flow[W]] = []
        self._drawn: list[Entry[W]] = []
        self._first: W | None = None
        self._from = 0

    def __iter__(self) -> Iterator[W]:
        for flow in self._flows.values():
            yield from flow

    def put(self, row: W) -> None:
        name, price = self._level(row)
        flow = self._flows.get(name)
        new = flow is None
        if flow is None:
            flow = FairQueue(self._below, self._horizon, name, price) if self._below else Fifo(name, price)
        if not flow.size:
            flow.start = flow.tag = max(flow.tag, self.now)
            flow.arrival = next(self._arrivals)
        flow.put(row)
        self.size += 1
        if new:
            self._flows[name] = flow
            heappush(self._order, (flow.start, flow.arrival, flow))

    def pull(self, gone: Test[W], placed: Test[W]) -> W | None:
        while (entry := self._next()) is not None:
            at, _, flow = entry
            size = flow.size
            flow.alone = self._only(flow)
            row = flow.pull(gone, placed)
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

    def purge(self, gone: Test[W]) -> None:
        for flow in self._flows.values():
            flow.purge(gone)
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
        """Return the flow to pull from next, if it is within the horizon or alone."""
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
                # A flow that could not be served for long must not take all turns once it can be.
                flow.start = max(flow.start, self.now - self._horizon)
                flow.tag = max(flow.tag, flow.start)
                entry = (flow.start, arrival, flow)
            if self._first is not None and entry[0] > self._from + self._horizon and not self._only(entry[2]):
                return None
            return entry
        return None

    def _only(self, flow: Flow[W]) -> bool:
        """Tell whether no other flow has rows, here or above, so that there is none to get ahead of."""
        return self.alone and len(self._touched) == 1 and self.size == flow.size

    def _stand(self, flow: Flow[W]) -> None:
        heappush(self._order, (flow.start if flow.size else flow.tag, flow.arrival, flow))

    def _move_on(self) -> None:
        """Move `now` on to the turn that comes, or to where all are even. Forget who is no longer ahead."""
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
    """Tell whether rows came to the flow, when it was empty, since it took this place."""
    return flow.size > 0 and (at, arrival) < (flow.start, flow.arrival)
