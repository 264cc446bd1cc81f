"""Windows of load from wrk, in turn on two servers, so that what disturbs one disturbs the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.bench import Say
from loadtest.processes import cpu_seconds
from loadtest.row import Pair
from loadtest.server import Served
from loadtest.wrk import Load, load, script

_IDLE_WITHIN_S = 10.0
_IDLE_STEP_S = 0.1
_IDLE_SHARE = 0.2


@dataclass(frozen=True)
class Windows:
    """How long and how often to measure: whole seconds a window, pairs of windows, clients at once."""

    seconds: int
    pairs: int
    connections: int


class Side:
    """A server and the requests that it gets in turn."""

    def __init__(self, name: str, served: Served, path: str, bodies: Sequence[bytes]) -> None:
        self.name = name
        self.pid = served.pid
        self._url = served.url
        self._lua = script(path, bodies)

    def load(self, connections: int, seconds: int) -> Load:
        """One window, and what the server still does of it once wrk has left, so that it burdens no other."""
        measured = load(self._url, self._lua, connections, seconds)
        wait_idle(self.pid)
        return measured


def wait_idle(pid: int) -> None:
    """Return when a process and its descendants use next to no CPU, or after `_IDLE_WITHIN_S`."""
    end = time.monotonic() + _IDLE_WITHIN_S
    used = cpu_seconds(pid)
    while used is not None and time.monotonic() < end:
        time.sleep(_IDLE_STEP_S)
        before, used = used, cpu_seconds(pid)
        if used is None or used - before <= _IDLE_SHARE * _IDLE_STEP_S:
            return


def alternate(top: Side, bottom: Side, windows: Windows, say: Say) -> list[tuple[Load, Load]]:
    """Pairs of windows, the order of the two alternating; a window of each beforehand is not measured."""
    for side in (top, bottom):
        side.load(windows.connections, windows.seconds)
    measured = []
    for i in range(windows.pairs):
        say(f"{top.name} against {bottom.name}, {windows.connections} clients: pair {i + 1} of {windows.pairs}")
        both = [side.load(windows.connections, windows.seconds) for side in ((top, bottom)[:: 1 - 2 * (i % 2)])]
        first, second = both[:: 1 - 2 * (i % 2)]
        measured.append((first, second))
    return measured


def rates(measured: Sequence[tuple[Load, Load]]) -> list[Pair]:
    """Requests a second of each side."""
    return [Pair(top.rate, bottom.rate) for top, bottom in measured]


def medians(measured: Sequence[tuple[Load, Load]]) -> list[Pair]:
    """The median latency of each side's windows in milliseconds."""
    return [Pair(top.p50_ms, bottom.p50_ms) for top, bottom in measured]


def spread(measured: Sequence[tuple[Load, Load]], names: tuple[str, str]) -> str:
    """A note: each side's middle p50 and p99."""
    told = []
    for name, loads in zip(names, zip(*measured, strict=True), strict=True):
        middle = sorted(loads, key=lambda one: one.p50_ms)[len(loads) // 2]
        told.append(
            f"{name} p50 {middle.p50_ms:.1f} ms, p99 {middle.p99_ms:.1f} ms, {middle.rate:.0f} requests/s"
        )
    return "; ".join(told)
