"""Queue the rows that wait, and choose those of the next batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from rootstock.service.engine.core.turns.fair_queue import FairQueue, Test
from rootstock.service.engine.core.work import PRIORITIES
from rootstock.service.engine.encode.batch import Row
from rootstock.service.engine.encode.packing import BatchLimits, pack

# The batches that may run before verification gets one: under endless load, verification gets 1/17 of the
# batches.
VERIFY_AFTER = 16
# The batches that may pass an adapter without a slot. Before the next one, it gets a slot ahead of all others.
SLOT_AFTER = 4
# A batch is chosen from the rows and tokens of this many batches. Within this window, an adapter may get ahead of
# others to save padding.
WINDOW = 4

Slotless = dict[str, tuple[Row, int]]


def _tenant(row: Row) -> tuple[Hashable, int]:
    return row.request.tenant, PRIORITIES["normal"]


def _flow(row: Row) -> tuple[Hashable, int]:
    return (row.flow, row.request.priority), PRIORITIES[row.request.priority]


def _adapter(row: Row) -> tuple[Hashable, int]:
    # The compositions of one flow take turns, so that one without a slot delays no other.
    return row.digest, 1


class Queue:
    """A fair queue of rows: by tenant, then by adapter and priority. Not thread-safe: only the batcher uses it.

    An adapter has one queue for each priority. All compositions of a tenant share one, in which they take turns,
    so that more weights get no larger share. Every batch holds the row whose turn it is
    (core/turns/fair_queue.py). The turn goes to the tenant that has run the fewest tokens, and within it to the
    adapter's queue with the fewest. A token of high priority counts as a quarter, and one of low priority as
    four. Rows whose turns are next join the batch if they fit its length (packing.py). Rows of one length in one
    adapter's queue keep their order, except that equal inputs may run together. Requests without a tenant share
    one.

    No row waits for ever. Let W be `WINDOW` times a batch's tokens, and L the tokens of the longest row, weighted
    by its priority. Consider the time from when a row is first in its adapter's queue until it runs. In this time
    each adapter's queue of its tenant, its own included, runs at most 2 W + 3 L tokens. Each other tenant runs at
    most 2 W + 3 L tokens more than the row's tenant. These bounds hold for any load. The queue of the
    compositions counts as one adapter's, and its first row is that of the composition whose turn is next. A row
    whose adapter gets no slot delays no other row. An adapter that `SLOT_AFTER` batches have passed takes a slot
    before all others. It then has at most W tokens to catch up.

    Rows of verification run only when no row of a request can, or after `VERIFY_AFTER` batches have passed them.
    Rows of shadows run only when no other row can, and share no batch with others: a fault of theirs fails no
    request.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        horizon = WINDOW * limits.tokens * PRIORITIES["normal"]
        self._serving, self._verifying, self._shadowing = (
            FairQueue((_tenant, _flow, _adapter), horizon) for _ in range(3)
        )
        self._passed = 0
        # In each of them, for each adapter that got no slot: a row of it, and the batches that have passed it.
        self._slotless: dict[FairQueue[Row], Slotless] = {turns: {} for turns in self._all}

    def __len__(self) -> int:
        return sum(turns.size for turns in self._all)

    @property
    def _all(self) -> tuple[FairQueue[Row], ...]:
        return self._serving, self._verifying, self._shadowing

    def put(self, row: Row) -> None:
        """Add a row at the end of its adapter's queue."""
        request = row.request
        turns = self._verifying if request.verifying else self._shadowing if request.shadow else self._serving
        turns.put(row)

    def take(self, has_slot: Test[Row], is_gone: Test[Row]) -> list[Row]:
        """Remove the next batch's rows from the queue and return them, or an empty list if no row can run.

        A row for which `is_gone(row)` is true is dropped. `has_slot(row)` is called at most once for each
        adapter, in order of turns. If it returns False, the rows of that adapter stay in the queue.
        """
        order = [self._serving, self._verifying]
        if self._passed >= VERIFY_AFTER:
            order.reverse()
        for turns in (*order, self._shadowing):
            batch = self._take_from(turns, has_slot, is_gone)
            if batch:
                waits = turns is self._serving and self._verifying.size > 0
                self._passed = self._passed + 1 if waits else 0
                return batch
        return []

    def purge(self, is_gone: Test[Row]) -> None:
        """Drop every row that nobody waits for. `take` drops only those whose turn comes."""
        for turns in self._all:
            turns.purge(is_gone)

    def _take_from(self, turns: FairQueue[Row], has_slot: Test[Row], is_gone: Test[Row]) -> list[Row]:
        known: dict[str, bool] = {}
        slotless = self._slotless[turns]

        def has_slot_once(row: Row) -> bool:
            if row.digest not in known:
                known[row.digest] = has_slot(row)
                if known[row.digest]:
                    slotless.pop(row.digest, None)
                else:
                    slotless[row.digest] = row, slotless.get(row.digest, (row, 0))[1] + 1
            return known[row.digest]

        self._give_slot(turns, has_slot_once, is_gone)
        window: list[Row] = []
        while len(window) < WINDOW * self.limits.rows and (row := turns.pull(is_gone, has_slot_once)) is not None:
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

    def _give_slot(self, turns: FairQueue[Row], has_slot: Test[Row], is_gone: Test[Row]) -> None:
        """Let the adapter that was passed most often take a slot first.

        Otherwise two tenants that use one adapter could keep the only slot for it without end.
        """
        slotless = self._slotless[turns]
        for digest in [digest for digest, (row, _) in slotless.items() if is_gone(row)]:
            del slotless[digest]
        row, passed = max(slotless.values(), key=lambda entry: entry[1], default=(None, 0))
        if row is not None and passed >= SLOT_AFTER:
            has_slot(row)

    def __iter__(self) -> Iterator[Row]:
        for turns in self._all:
            yield from turns
