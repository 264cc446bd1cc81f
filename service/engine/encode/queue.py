"""Rows that wait, and which of them make the next batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from rootstock.service.engine.core.fair_queue import FairQueue, Test
from rootstock.service.engine.core.work import PRIORITIES
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.packing import BatchLimits, pack

# Batches that may pass while verification waits: a share of 1/17 under load that never ends.
VERIFY_AFTER = 16
# From how many batches' rows and tokens one is chosen: so far one adapter gets ahead of others for less padding.
WINDOW = 4


def _tenant(row: Row) -> tuple[Hashable, int]:
    return row.request.tenant, PRIORITIES["normal"]


def _line(row: Row) -> tuple[Hashable, int]:
    return (row.digest, row.request.priority), PRIORITIES[row.request.priority]


class Queue:
    """Rows by tenant, then by line: an adapter's rows of one priority. Not thread-safe: the batcher's own.

    Every batch holds the row whose turn it is (core/fair_queue.py). The turn goes to the tenant that has had the
    fewest tokens, and within it to such a line; a token of high priority counts as a quarter, one of low as four.
    The rows whose turns are next join it where they fit its length (packing.py). Rows of one line and one length
    keep their order; only equal inputs run together out of it.

    No row waits for ever. Let W be `WINDOW` times a batch's tokens and L the longest row, so counted. From the
    time that a row is the first of its line until it runs, each line of its tenant, its own included, runs at
    most 2 W + 3 L tokens, and each other tenant at most 2 W + 3 L more than its own does, whatever they send. A
    row whose adapter gets no slot holds up no other; it has at most W more to make up for when it gets one.

    Verification's rows are taken only when no other row can be, and once `VERIFY_AFTER` batches have gone before
    them.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        horizon = WINDOW * limits.tokens * PRIORITIES["normal"]
        self._serving, self._verifying = (FairQueue((_tenant, _line), horizon) for _ in range(2))
        self._passed = 0

    def __len__(self) -> int:
        return self._serving.size + self._verifying.size

    def put(self, row: Row) -> None:
        """Add a row at the end of its line."""
        (self._verifying if row.request.verifying else self._serving).put(row)

    def take(self, placed: Test[Row], gone: Test[Row]) -> list[Row]:
        """Remove the next batch's rows from the queue and return them; none if nothing can run.

        `gone(row)` drops a row that nobody waits for. `placed(row)` is asked once an adapter, in order, whether
        it has a slot in this batch; where not, its rows stay.
        """
        order = [self._serving, self._verifying]
        if self._passed >= VERIFY_AFTER:
            order.reverse()
        for turns in order:
            batch = self._take_from(turns, placed, gone)
            if batch:
                waits = turns is self._serving and self._verifying.size > 0
                self._passed = self._passed + 1 if waits else 0
                return batch
        return []

    def purge(self, gone: Test[Row]) -> None:
        """Drop the rows that nobody waits for, wherever they stand: `take` sees only the next ones."""
        for turns in (self._serving, self._verifying):
            turns.purge(gone)

    def _take_from(self, turns: FairQueue[Row], placed: Test[Row], gone: Test[Row]) -> list[Row]:
        places: dict[str, bool] = {}

        def has_place(row: Row) -> bool:
            if row.digest not in places:
                places[row.digest] = placed(row)
            return places[row.digest]

        window: list[Row] = []
        while len(window) < WINDOW * self.limits.rows and (row := turns.pull(gone, has_place)) is not None:
            window.append(row)
        batch = pack(window, self.limits) if window else []
        chosen = set(batch)
        for row in reversed(window):
            if row not in chosen:
                turns.back(row)
        for row in batch:
            turns.serve(row)
        turns.close()
        return batch

    def __iter__(self) -> Iterator[Row]:
        for turns in (self._serving, self._verifying):
            yield from turns
