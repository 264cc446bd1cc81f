"""The CPU time of a process and its descendants, to see what an idle one costs."""

from __future__ import annotations

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float | None:
    """User and system seconds so far of a process and its live descendants; None where there is no /proc."""
    proc = Path("/proc")
    if not (proc / str(pid) / "stat").is_file():
        return None
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold spaces: fields are counted from behind it (proc(5)).
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(member, 0) for member in family) / os.sysconf("SC_CLK_TCK")


class IdleClock:
    """What processes use while they have nothing to do, as a share of one core."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def add(self, name: str, used: float, seconds: float) -> None:
        """Count a span in which the process `name` was idle."""
        self._used[name] = self._used.get(name, 0.0) + used
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def shares(self) -> dict[str, float]:
        """CPU seconds used in each idle second, by name."""
        return {name: used / self._seconds[name] for name, used in self._used.items()}
