"""Rows that wait, and which of them make the next batch."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.engine.batch import Row
from service.engine.errors import Overloaded, TooLarge


@dataclass(frozen=True)
class Capacity:
    """How much may wait: `items` rows and `tokens` tokens. One rule for admission, in both."""

    items: int = 2048
    tokens: int = 262_144


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch gets: rows, and tokens counted with padding. A single longer row runs alone.

    `padding` is the share of a batch that may be padding; a row that would exceed it waits for its like.
    """

    rows: int = 32
    tokens: int = 2048
    padding: float = 0.25


class Queue:
    """Rows by adapter, first come first served, the adapters in turn. Not thread-safe: the batcher locks it.

    The row that has waited longest among the adapters' turns always goes into the next batch, so that no row
    waits for ever; then one row of each adapter in turn joins while the batch stays within its limits.
    Verification's rows are taken only when no other row can be.
    """

    def __init__(self, capacity: Capacity, limits: BatchLimits) -> None:
        self.capacity = capacity
        self.limits = limits
        self._flows: OrderedDict[str, deque[Row]] = OrderedDict()
        self._verifying: deque[Row] = deque()
        self.items = 0
        self.tokens = 0

    def __len__(self) -> int:
        return self.items

    def admit(self, items: int, tokens: int) -> None:
        """Overloaded if this much more does not fit now; TooLarge if it never could."""
        held, limit = (self.items, self.tokens), (self.capacity.items, self.capacity.tokens)
        for more, now, most, unit in zip((items, tokens), held, limit, ("inputs", "tokens"), strict=True):
            if more > most:
                raise TooLarge(f"{more} {unit} in one request; the queue holds at most {most}", "inputs")
            if now + more > most:
                raise Overloaded(f"{now} {unit} wait and {more} more exceed the queue's {most}; try again", 1)

    def put(self, rows: list[Row]) -> None:
        """Add rows at the end of their adapter's line. Call `admit` first."""
        for row in rows:
            if row.request.verifying:
                self._verifying.append(row)
            else:
                self._flows.setdefault(row.digest, deque()).append(row)
            self._count(row, 1)

    def take(self, placed: Callable[[Row], bool], gone: Callable[[Row], bool]) -> list[Row]:
        """The next batch's rows, removed from the queue; empty if nothing can run.

        `gone(row)` drops a row that nobody waits for. `placed(row)` is asked once a row, in order, whether its
        adapter has a slot in this batch; a row without one stays, ahead of later rows of its adapter.
        """
        batch = self._take_from(self._flows, placed, gone)
        if batch or not self._verifying:
            return batch
        flows = OrderedDict({"": self._verifying})
        batch = self._take_from(flows, placed, gone)
        self._verifying = flows.get("", deque())
        return batch

    def drain(self) -> list[Row]:
        """Every row, removed."""
        rows = [row for flow in [*self._flows.values(), self._verifying] for row in flow]
        self._flows.clear()
        self._verifying.clear()
        self.items = self.tokens = 0
        return rows

    def _take_from(
        self,
        flows: OrderedDict[str, deque[Row]],
        placed: Callable[[Row], bool],
        gone: Callable[[Row], bool],
    ) -> list[Row]:
        batch: list[Row] = []
        longest = total = 0
        waiting = list(flows)
        while waiting and len(batch) < self.limits.rows:
            again = []
            for digest in waiting:
                row = self._next(flows, digest, gone)
                if row is None or len(batch) == self.limits.rows:
                    continue
                size = max(longest, row.length)
                if batch and not self._fits(size * (len(batch) + 1), total + row.length):
                    continue
                if not placed(row):
                    continue
                flows[digest].popleft()
                self._count(row, -1)
                batch.append(row)
                longest, total = size, total + row.length
                again.append(digest)
            waiting = again
        for digest in dict.fromkeys(row.digest for row in batch):
            if digest in flows:
                flows.move_to_end(digest)
        self._sweep(flows)
        return batch

    def _fits(self, padded: int, tokens: int) -> bool:
        return padded <= self.limits.tokens and padded - tokens <= self.limits.padding * padded

    def _next(self, flows: OrderedDict[str, deque[Row]], digest: str, gone: Callable[[Row], bool]) -> Row | None:
        flow = flows[digest]
        while flow and gone(flow[0]):
            self._count(flow.popleft(), -1)
        return flow[0] if flow else None

    def _sweep(self, flows: OrderedDict[str, deque[Row]]) -> None:
        for digest in [d for d, flow in flows.items() if not flow]:
            del flows[digest]

    def _count(self, row: Row, sign: int) -> None:
        self.items += sign
        self.tokens += sign * row.length

    def __iter__(self) -> Iterator[Row]:
        for flow in [*self._flows.values(), self._verifying]:
            yield from flow
