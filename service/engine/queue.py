"""Rows that wait, and which of them make the next batch."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from service.engine.batch import Row
from service.engine.errors import Overloaded, TooLarge

# Batches that may pass while verification waits: a share of 1/17 under load that never ends.
VERIFY_AFTER = 16


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

    The adapter that was served longest ago always goes into the next batch, so that no row waits for ever: row
    k of an adapter's line waits for at most (k + 1) x (adapters waiting) batches, verification's aside. Then one
    row of each adapter in turn joins while the batch stays within its limits. Verification's rows are taken only
    when no other row can be, and once `VERIFY_AFTER` batches have gone before them.
    """

    def __init__(self, capacity: Capacity, limits: BatchLimits) -> None:
        self.capacity = capacity
        self.limits = limits
        self._flows: OrderedDict[str, deque[Row]] = OrderedDict()
        self._verifying: OrderedDict[str, deque[Row]] = OrderedDict()
        self._passed = 0
        self.items = 0
        self.tokens = 0

    def __len__(self) -> int:
        return self.items

    def admit(self, items: int, tokens: int, ahead: int = 0) -> None:
        """Overloaded if this much more does not fit now; TooLarge if it never could.

        `ahead`: inputs that were let in before these and are not in the queue yet.
        """
        asked = (
            (items, self.items + ahead, self.capacity.items, "inputs"),
            (tokens, self.tokens, self.capacity.tokens, "tokens"),
        )
        for more, _, most, unit in asked:
            if more > most:
                raise TooLarge(f"{more} {unit} in one request; the queue holds at most {most}", "inputs")
        for more, now, most, unit in asked:
            if now + more > most:
                raise Overloaded(f"{now} {unit} wait and {more} more exceed the queue's {most}; try again", 1)

    def put(self, rows: list[Row]) -> None:
        """Add rows at the end of their adapter's line. Call `admit` first."""
        for row in rows:
            flows = self._verifying if row.request.verifying else self._flows
            flows.setdefault(row.digest, deque()).append(row)
            self._count(row, 1)

    def take(self, placed: Callable[[Row], bool], gone: Callable[[Row], bool]) -> list[Row]:
        """The next batch's rows, removed from the queue; empty if nothing can run.

        `gone(row)` drops a row that nobody waits for. `placed(row)` is asked once a row, in order, whether its
        adapter has a slot in this batch; a row without one stays, ahead of later rows of its adapter.
        """
        order = [self._flows, self._verifying]
        if self._passed >= VERIFY_AFTER:
            order.reverse()
        for flows in order:
            batch = self._take_from(flows, placed, gone)
            if batch:
                waits = flows is self._flows and bool(self._verifying)
                self._passed = self._passed + 1 if waits else 0
                return batch
        return []

    def purge(self, gone: Callable[[Row], bool]) -> None:
        """Drop the rows that nobody waits for, wherever they stand: `take` sees only the head of each line."""
        for flows in (self._flows, self._verifying):
            for digest, flow in flows.items():
                kept: deque[Row] = deque()
                for row in flow:
                    if gone(row):
                        self._count(row, -1)
                    else:
                        kept.append(row)
                flows[digest] = kept
            self._sweep(flows)

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
        for flow in [*self._flows.values(), *self._verifying.values()]:
            yield from flow
