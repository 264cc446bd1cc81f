"""The memory that a run takes."""

from __future__ import annotations

import resource
import sys


def peak_memory_mb() -> int:
    """Return the most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts it in KiB, macOS in bytes.
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)
