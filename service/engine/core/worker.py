"""Define the base class of the engine's threads, which reports a thread that fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable


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
