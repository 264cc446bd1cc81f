"""The garbage collector during a start."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pause_collector() -> Iterator[None]:
    """Pause the collector while modules load; afterwards exempt everything that they hold.

    A full collection takes tens of milliseconds. Modules live as long as the process, so that a collection in the
    middle of a request need not visit them.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*before)
