"""What a process and its descendants use: CPU time, to see what an idle one costs, and memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# Of /proc/<pid>/stat behind the name, from 0: parent, user ticks, system ticks (proc(5)).
_PARENT, _USER, _SYSTEM = 1, 11, 12


@dataclass(frozen=True)
class Memory:
    """Memory of some processes in MB, a million bytes.

    `resident` adds up each one's resident set, so that a page that two of them share counts twice.
    `proportional` gives each of a page's users, those outside too, an equal share of it.
    """

    processes: int
    resident: float
    proportional: float


def has_proc() -> bool:
    """Whether this system tells about processes in /proc."""
    return (_PROC / "self" / "stat").is_file()


def cpu_seconds(pid: int) -> float | None:
    """User and system seconds so far of a process and its live descendants; None where there is no /proc."""
    if not (_PROC / str(pid) / "stat").is_file():
        return None
    ticks = [int(fields[_USER]) + int(fields[_SYSTEM]) for fields in _family(pid).values()]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> Memory:
    """The memory of a process and its live descendants, from /proc; OSError where that cannot be read."""
    rolled = [(_PROC / str(member) / "smaps_rollup").read_text() for member in _family(pid)]
    return Memory(
        len(rolled), sum(_mb(text, "Rss:") for text in rolled), sum(_mb(text, "Pss:") for text in rolled)
    )


def _mb(rolled: str, name: str) -> float:
    """A line such as `Rss:  1234 kB` in MB; the file counts in units of 1024 bytes."""
    return next(int(line.split()[1]) * 1024 / 1e6 for line in rolled.splitlines() if line.startswith(name))


def _family(pid: int) -> dict[int, list[str]]:
    """A process and its live descendants, each with its fields of /proc/<pid>/stat behind the name."""
    found: dict[int, list[str]] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold spaces: fields are counted from behind it.
            found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
    family = {pid}
    while more := {p for p, fields in found.items() if int(fields[_PARENT]) in family} - family:
        family |= more
    return {member: found[member] for member in family if member in found}


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
