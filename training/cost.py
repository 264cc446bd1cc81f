"""The time and the memory that a run takes, over all processes that worked on it."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rootstock.training.fit.descent import Report

_FILE = "cost.json"
# The seconds between two writes of the file.
_PAUSE = 1.0


def peak_memory_mb() -> int:
    """Return the most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts it in KiB, macOS in bytes.
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6)


class RunClock:
    """The time that a run took, also in processes that were killed; it is kept beside the run's checkpoints.

    A run with another `key` begins at 0. `began` is the time of `now` at which this process began the run. A
    killed process loses at most the time since its last step.
    """

    def __init__(self, folder: Path, key: str, began: float, now: Callable[[], float] = time.monotonic) -> None:
        self._path = folder / _FILE
        self._key = key
        self._began = self._written = began
        self._now = now
        self._before: dict[str, Any] = {"seconds": 0.0, "peak_memory_mb": 0, "processes": 0}
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["key"] == key:
                self._before = {name: type(value)(kept[name]) for name, value in self._before.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the seconds, the most memory and, of a resumed run, the number of its processes."""
        processes = self._before["processes"] + 1
        return {
            "seconds": round(self._before["seconds"] + self._now() - self._began, 1),
            "peak_memory_mb": max(self._before["peak_memory_mb"], peak_memory_mb()),
            **({"processes": processes} if processes > 1 else {}),
        }

    def keeping(self, report: Report) -> Report:
        """Return the report, with the time so far kept at its steps."""

        def kept(done: int, total: int, note: str, *rate: float) -> None:
            report(done, total, note, *rate)
            if self._now() - self._written >= _PAUSE:
                self._keep()

        return kept

    def _keep(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(f".new-{os.getpid()}")
        new.write_text(json.dumps({"key": self._key, "processes": 1, **self.to_json()}), encoding="utf-8")
        os.replace(new, self._path)
        self._written = self._now()
