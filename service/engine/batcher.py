"""The thread that runs the model: take a batch from the queue, lease slots, run, hand the outputs on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.engine.batch import Request, Row, Runner, pad
from service.engine.errors import EngineError, RunnerFault
from service.engine.queue import Queue
from service.engine.slots import Slots


@dataclass(frozen=True)
class BatchStats:
    """One batch as run: `tokens` without padding, `padded` with it, `seconds` in the runner."""

    rows: int
    adapters: int
    tokens: int
    padded: int
    seconds: float


class Observer(Protocol):
    """Told of what the engine does; called from its threads, must not block."""

    def batch(self, stats: BatchStats) -> None: ...

    def refused(self, reason: str) -> None: ...


class Batcher(threading.Thread):
    """Runs batches while there are rows; `finish(request, error)` is called once for each request it ends.

    Rows of a request that is gone are never computed. A fault in the runner fails the requests of that batch.
    """

    def __init__(
        self,
        queue: Queue,
        slots: Slots,
        runner: Runner,
        pad_id: int,
        finish: Callable[[Request, EngineError | None], None],
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="rootstock-batcher", daemon=True)
        self._queue = queue
        self._slots = slots
        self._runner = runner
        self._pad_id = pad_id
        self._finish = finish
        self._observer = observer
        self._clock = clock
        self._changed = threading.Condition()
        self._stopping = False
        self._left = False
        self._dropping: set[str] = set()

    def admit(self, rows: list[Row]) -> None:
        """Queue a request's rows, unless it is gone by now; Overloaded or TooLarge if they do not fit."""
        with self._changed:
            self._purge()
            if any(row.request.gone for row in rows):
                return
            self._queue.admit(len(rows), sum(r.length for r in rows))
            self._queue.put(rows)
            self._changed.notify()

    def check(self, items: int, ahead: int = 0) -> None:
        """Overloaded or TooLarge if this many more inputs do not fit, before they are tokenised.

        Without the lock, which is held while an adapter is loaded: the event loop must not wait for that. `admit`
        asks again, and knows better where requests have left.
        """
        if not self._left:
            self._queue.admit(items, 0, ahead)

    def leave(self) -> None:
        """Some request is gone unanswered: its rows are dropped before the next batch or admission."""
        self._left = True

    def drop(self, digest: str) -> None:
        """Free the adapter's slot, once no batch holds it. May wait while another adapter is loaded."""
        with self._changed:
            self._dropping.add(digest)
            self._changed.notify()

    def waiting(self) -> tuple[int, int]:
        """Rows and tokens in the queue, at about this moment: without the lock, see `check`."""
        return self._queue.items, self._queue.tokens

    def resident(self) -> frozenset[str]:
        """Digests of the adapters in slots."""
        return self._slots.resident()

    def stop(self) -> None:
        """Finish what is queued, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """The thread's loop."""
        while True:
            with self._changed:
                while not self._queue.items and not self._stopping and not self._dropping:
                    self._changed.wait()
                self._dropping = {d for d in self._dropping if not self._slots.drop(d)}
                self._purge()
                if not self._queue.items and self._stopping:
                    return
                failed: list[tuple[Request, EngineError]] = []
                leased: list[int] = []
                rows = self._queue.take(lambda row: self._lease(row, leased, failed), self._gone)  # noqa: B023
            for request, error in failed:
                self._finish(request, error)
            if rows:
                self._run(rows, leased)

    def _purge(self) -> None:
        if self._left:
            self._left = False
            self._queue.purge(self._gone)

    def _gone(self, row: Row) -> bool:
        request = row.request
        if not request.gone and self._clock() > request.deadline:
            request.gone = True
        return request.gone

    def _lease(self, row: Row, leased: list[int], failed: list[tuple[Request, EngineError]]) -> bool:
        request = row.request
        try:
            slot = self._slots.lease(request.adapter, request.verifying)
        except Exception as error:  # whatever a runner raises: its request fails, the engine goes on
            request.gone = True
            failed.append((request, RunnerFault(f"the adapter could not be loaded: {error}")))
            return False
        if slot is None:
            return False
        leased.append(slot)
        return True

    def _run(self, rows: list[Row], slots: list[int]) -> None:
        started = self._clock()
        for row in rows:
            if row.request.started is None:
                row.request.started = started
        batch = pad([r.encoded for r in rows], slots, self._pad_id)
        outputs: list[np.ndarray] | None = None
        fault: RunnerFault | None = None
        try:
            outputs = list(self._runner.run(batch))
            if len(outputs) != len(rows):
                raise ValueError(f"{len(outputs)} outputs for {len(rows)} rows")
        except Exception as error:  # whatever a runner raises: this batch fails, the engine goes on
            outputs = None
            fault = RunnerFault(f"the runner failed on this batch: {type(error).__name__}: {error}")
        finally:
            with self._changed:
                for row in rows:
                    self._slots.release(row.digest, row.request.verifying)
        finished = self._clock()
        tokens = sum(batch.lengths)
        stats = BatchStats(len(rows), len(set(slots)), tokens, batch.input_ids.size, finished - started)
        self._observer.batch(stats)
        for i, row in enumerate(rows):
            self._deliver(row, None if outputs is None else outputs[i], fault, finished)

    def _deliver(self, row: Row, output: np.ndarray | None, fault: RunnerFault | None, now: float) -> None:
        request = row.request
        if request.gone:
            return
        if output is not None and not np.isfinite(output).all():
            fault = RunnerFault(f"the model's output for inputs[{row.index}] is not finite")
        if output is None or fault is not None:
            request.gone = True
            self._finish(request, fault)
            return
        request.outputs[row.index] = output
        if all(o is not None for o in request.outputs):
            request.finished = now
            self._finish(request, None)
