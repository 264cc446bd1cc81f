"""The base of the engine's threads: none ends in silence."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable


class Worker(threading.Thread):
    """A thread that runs `loop`. A fault that ends the loop is logged, then `fell` is told of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name=f"rootstock-{name}", daemon=True)
        self.fell: Callable[[BaseException], None] = lambda fault: None

    def loop(self) -> None:
        """Do the thread's work until it is told to end."""
        raise NotImplementedError

    def run(self) -> None:
        """Run the loop, and tell of the fault that ends it."""
        try:
            self.loop()
        except BaseException as fault:
            logging.getLogger(__name__).critical("the engine's thread %s ended", self.name, exc_info=True)
            self.fell(fault)
