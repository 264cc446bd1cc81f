"""The CPU time and the memory of a process and its descendants."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NO_PROC_MEMORY = "this system has no /proc to read the memory of processes from"
_PROC = Path("/proc")
# Of /proc/<pid>/stat behind the name, from 0: parent, user ticks, system ticks (proc(5)).
_PARENT, _USER, _SYSTEM = 1, 11, 12


@dataclass(frozen=True)
class Memory:
    """Memory of some processes in MB, a million bytes.

    `resident` adds up the resident sets: a page that two processes share counts twice. `proportional` gives each
    user of a page an equal share of it, users outside included.
    """

    processes: int
    resident: float
    proportional: float


def has_proc() -> bool:
    """Return whether this system describes processes in /proc."""
    return (_PROC / "self" / "stat").is_file()


def cpu_seconds(pid: int) -> float | None:
    """Return the user and system seconds of a process and its live descendants; None without /proc."""
    if not (_PROC / str(pid) / "stat").is_file():
        return None
    ticks = [int(fields[_USER]) + int(fields[_SYSTEM]) for fields in _family(pid).values()]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Return the seconds that the machine's cores have worked since its start; 0 without /proc."""
    stat = _PROC / "stat"
    if not stat.is_file():
        return 0.0
    # The first line adds up all cores: user, nice, system, idle, iowait, irq, softirq, steal, and guests again.
    ticks = [int(field) for field in stat.read_text().split(maxsplit=9)[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def pin(pid: int, core: int) -> None:
    """Let the threads of a process and its live descendants run on one core alone."""
    for member in _family(pid):
        for thread in (_PROC / str(member) / "task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def memory(pid: int) -> Memory:
    """Return the memory of a process and its live descendants. Raise OSError if /proc cannot be read."""
    rollups = [(_PROC / str(member) / "smaps_rollup").read_text() for member in _family(pid)]
    return Memory(
        len(rollups), sum(_mb(text, "Rss:") for text in rollups), sum(_mb(text, "Pss:") for text in rollups)
    )


def _mb(rollup: str, name: str) -> float:
    """Return a line such as `Rss:  1234 kB` in MB. The file counts in units of 1024 bytes."""
    return next(int(line.split()[1]) * 1024 / 1e6 for line in rollup.splitlines() if line.startswith(name))


def _family(pid: int) -> dict[int, list[str]]:
    """Return a process and its live descendants, each with its fields of /proc/<pid>/stat behind the name."""
    processes: dict[int, list[str]] = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold spaces: fields are counted from behind it.
            processes[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
    family = {pid}
    while more := {p for p, fields in processes.items() if int(fields[_PARENT]) in family} - family:
        family |= more
    return {member: processes[member] for member in family if member in processes}


class IdleClock:
    """The CPU time of idle processes, as a share of one core."""

    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def add(self, name: str, used: float, seconds: float) -> None:
        """Add a span in which the process `name` was idle."""
        self._used[name] = self._used.get(name, 0.0) + used
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def shares(self) -> dict[str, float]:
        """Return the CPU seconds in each idle second, by name."""
        return {name: used / self._seconds[name] for name, used in self._used.items()}
