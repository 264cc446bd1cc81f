"""The thread that runs the model: it takes a batch from the queue, leases slots, runs it and hands outputs on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from rootstock.adapters.spec import Array
from rootstock.service.engine.core.admission import Admission, Ticket
from rootstock.service.engine.core.errors import EngineError, RunnerFault
from rootstock.service.engine.core.observer import BatchStats, Observer
from rootstock.service.engine.core.request import Request
from rootstock.service.engine.core.slots import Slots
from rootstock.service.engine.core.work import Priority
from rootstock.service.engine.core.worker import SlotWorker
from rootstock.service.engine.encode.batch import Encoder, Row, assemble
from rootstock.service.engine.encode.queue import Queue
from rootstock.service.engine.encode.sample import Collate

# The slot of each adapter that a batch leases. An adapter that is verified takes the slot for verification.
Leases = dict[tuple[str, bool], int]


class Batcher(SlotWorker):
    """A thread that runs batches while rows wait.

    It calls `finish(request, error)` once for each request it ends.

    It never computes rows of a request that is gone. A fault in the runner fails the requests of that batch. Only
    this thread uses the queue and the slots, so admission does not wait while an adapter is loaded. Where several
    engines share the machine's cores, `turn` reserves the cores while this thread chooses and runs a batch.
    """

    def __init__(
        self,
        queue: Queue,
        slots: Slots,
        runner: Encoder,
        collate: Collate,
        finish: Callable[[Request, EngineError | None], None],
        admission: Admission,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__("batcher", slots)
        self._queue = queue
        self._runner = runner
        self._collate = collate
        self._finish = finish
        self._admission = admission
        self._observer = observer
        self._clock = clock
        self._turn = turn
        # `_changed` guards these too.
        self._incoming: list[Row] = []
        self._left = False

    def admit(self, rows: Sequence[Row]) -> None:
        """Queue a call's rows, unless the call is gone. Raise Overloaded or TooLarge if they do not fit."""
        if any(row.request.progress.left for row in rows):
            return
        self._admission.settle(rows[0].request.ticket, len(rows), sum(row.cost for row in rows))
        with self._changed:
            self._incoming += rows
            self._changed.notify()

    def outgrow(self, ticket: Ticket, tokens: int) -> None:
        """Raise a call's estimate to this many tokens. Raise Overloaded or TooLarge as `admit` does.

        Rows that wait for the rest of their call take memory too: half a minute of silence is a small file.
        """
        if tokens > ticket.tokens:
            self._admission.settle(ticket, ticket.items, tokens)

    def leave(self) -> None:
        """Drop the rows of requests that are gone unanswered, before the next batch."""
        self._left = True

    def resident(self) -> frozenset[str]:
        """Return the digests of the adapters in slots."""
        return self._slots.resident()

    def loop(self) -> None:
        """Run batches until the thread is stopped."""
        while self._wait():
            self.step()

    def step(self) -> bool:
        """Take in new work and run one batch, without waiting. Return False if no row could run."""
        self._take_in()
        leased: Leases = {}
        failed: list[tuple[Request, EngineError]] = []
        # Choose rows after the engine's turn has come: new rows may have come by then, and others may have left.
        with self._turn():
            rows = self._queue.take(lambda row: self._lease(row, leased, failed), self._gone)
            for request, error in failed:
                self._finish(request, error)
            if rows:
                self._run(rows, leased)
        return bool(rows)

    def _wait(self) -> bool:
        """Wait for work. Return False once the thread is stopped and no row is left."""
        with self._changed:
            while not (self._incoming or len(self._queue) or self._stopping or self._dropping or self._placing):
                self._changed.wait()
            return not self._stopping or bool(self._incoming or len(self._queue))

    def _take_in(self) -> None:
        with self._changed:
            incoming, self._incoming = self._incoming, []
        self.change_slots()
        for row in incoming:
            self._queue.put(row)
        if self._left:
            self._left = False
            self._queue.purge(self._gone)

    def _gone(self, row: Row) -> bool:
        request = row.request
        if self._clock() > request.deadline:
            request.progress.leave()
        return request.progress.left

    def _lease(self, row: Row, leased: Leases, failed: list[tuple[Request, EngineError]]) -> bool:
        request = row.request
        try:
            slot = self._slots.lease(request.adapter, request.verifying)
        except Exception as error:  # a runner can raise anything: the request fails and the engine goes on
            request.progress.leave()
            failed.append((request, RunnerFault.caused("the adapter could not be loaded", error)))
            return False
        if slot is None:
            return False
        leased[row.digest, request.verifying] = slot
        return True

    def _run(self, rows: Sequence[Row], leased: Leases) -> None:
        started = self._clock()
        waits = self._start(rows, started)
        results: Sequence[Array | RunnerFault]
        tokens = padded = 0
        try:
            slots = [leased[row.digest, row.request.verifying] for row in rows]
            batch = assemble([row.sample for row in rows], slots, self._collate)
            tokens, padded = sum(batch.lengths), batch.padded
            results = _checked(rows, self._runner.run(batch))
        except Exception as error:  # a runner can raise anything: this batch fails and the engine goes on
            results = [RunnerFault.caused("the runner failed on this batch", error)] * len(rows)
        for digest, verifying in leased:
            self._slots.release(digest, verifying)
        finished = self._clock()
        adapters, length = len({row.digest for row in rows}), sum(row.cost for row in rows)
        stats = BatchStats(len(rows), adapters, tokens, padded, finished - started, waits)
        self._observer.batch(stats)
        self._admission.ran(length, finished - started)
        for row, result in zip(rows, results, strict=True):
            row.request.progress.share(stats, stats.seconds * row.cost / length)
            self._deliver(row, result, finished)

    def _start(self, rows: Sequence[Row], now: float) -> list[tuple[Priority, float]]:
        """Note that the rows wait no more. Return the waits of the requests that begin with them."""
        waits = []
        for row in rows:
            request = row.request
            self._admission.take(request.ticket, row.cost)
            if request.progress.start(now) and not (request.verifying or request.shadow):
                waits.append((request.priority, now - request.arrived))
        return waits

    def _deliver(self, row: Row, result: Array | RunnerFault, now: float) -> None:
        request = row.request
        if request.progress.left:
            return
        if isinstance(result, RunnerFault):
            request.progress.leave()
            self._finish(request, result)
        elif request.progress.record(row.index, result, now):
            self._finish(request, None)


def _checked(rows: Sequence[Row], outputs: Sequence[Array]) -> list[Array | RunnerFault]:
    """Return each row's output, or a RunnerFault for an output that is not finite."""
    if len(outputs) != len(rows):
        raise ValueError(f"the runner returned {len(outputs)} outputs for {len(rows)} rows")
    return [
        output
        if np.isfinite(output).all()
        else RunnerFault(
            f"the model's output for inputs[{row.request.progress.input_of(row.index)}] is not finite"
        )
        for row, output in zip(rows, outputs, strict=True)
    ]
