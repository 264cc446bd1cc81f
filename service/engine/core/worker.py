"""Define the base classes of the engine's threads: one reports its faults, one alone uses the slots."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from rootstock.adapters.spec import Adapter
from rootstock.service.engine.core.slots import Slots


class Worker(threading.Thread):
    """A thread that runs `loop`. It logs a fault that ends the loop and then calls `fell` with it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=f"rootstock-{name}", daemon=True)
        self.fell: Callable[[BaseException], None] = lambda fault: None

    def loop(self) -> None:
        """Do the thread's work until the thread is stopped."""
        raise NotImplementedError

    def run(self) -> None:
        """Run the loop, and report a fault that ends it."""
        try:
            self.loop()
        except BaseException as fault:
            logging.getLogger(__name__).critical("the engine's thread %s failed", self.name, exc_info=True)
            self.fell(fault)


class SlotWorker(Worker):
    """A thread that alone uses the slots. Other threads tell it what to put into them and to take out.

    `_changed` guards what is passed between threads. No thread holds it for long.
    """

    def __init__(self, name: str, slots: Slots) -> None:
        super().__init__(name)
        self._slots = slots
        self._changed = threading.Condition()
        self._stopping = False
        self._dropping: list[str] = []
        self._placing: list[Adapter] = []

    def drop(self, digest: str) -> None:
        """Free the adapter's slot soon: before the next work, or once no work leases it."""
        with self._changed:
            self._dropping.append(digest)
            self._changed.notify()

    def place(self, adapter: Adapter) -> None:
        """Put the adapter into a slot before the next work, without waiting for its first request."""
        with self._changed:
            self._placing.append(adapter)
            self._changed.notify()

    def stop(self) -> None:
        """End the thread after the work that it has."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def change_slots(self) -> None:
        """Free and fill the slots as other threads asked."""
        with self._changed:
            dropping, self._dropping = self._dropping, []
            placing, self._placing = self._placing, []
        if leased := [digest for digest in dropping if not self._slots.drop(digest)]:
            with self._changed:
                self._dropping += leased
        for adapter in placing:
            # If staging fails here, it fails again for the first request that needs the adapter, which gets the
            # error.
            with suppress(Exception):
                if self._slots.lease(adapter) is not None:
                    self._slots.release(adapter.digest)
