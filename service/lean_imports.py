"""The import of a server's modules, in little time and memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# structlog imports it, if it is there, only to print tracebacks in colour, which no log of the server does. It
# takes 4 MB.
_UNUSED = "rich"


@contextmanager
def lean_imports() -> Iterator[None]:
    """Pause the garbage collector and leave out a library that nobody uses, while modules load.

    A full collection takes tens of milliseconds. Modules live as long as the process, so that a collection in the
    middle of a request need not visit them.
    """
    hidden = _UNUSED not in sys.modules
    if hidden:
        # An import of a name that stands for None raises ImportError.
        sys.modules[_UNUSED] = None  # type: ignore[assignment]
    before = gc.get_threshold()
    gc.set_threshold(50_000, *before[1:])
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*before)
        if hidden:
            del sys.modules[_UNUSED]
