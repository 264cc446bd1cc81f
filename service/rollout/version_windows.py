"""The recent requests of each version that a rollback rule judges, and the comparisons of their answers."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from rootstock.service.rollout.judgement import ComparisonFigures, VersionFigures
from rootstock.service.rollout.recent_samples import RecentSamples

# A window takes up to 50 KiB. Of more versions, those without recent requests are forgotten first.
MOST_WINDOWS = 1024
_FAULT = math.inf


@dataclass(slots=True)
class VersionWindow:
    """The recent requests of one version, and by incumbent whether each compared answer differed.

    A request that failed counts with infinite seconds.
    """

    requests: RecentSamples = field(default_factory=RecentSamples)
    compared: dict[int, RecentSamples] = field(default_factory=dict)


class VersionWindows:
    """The recent requests of versions, by the name that the registry keeps and the number.

    `clock` gives seconds that never go back. Use it from one thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MOST_WINDOWS) -> None:
        self._clock = clock
        self._most = most
        self._windows: OrderedDict[tuple[str, int], VersionWindow] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def answered(self, name: str, version: int, seconds: float) -> None:
        """Note that a version answered a request, and the seconds that it computed."""
        self._window(name, version).requests.add(self._clock(), seconds)

    def failed(self, name: str, version: int) -> None:
        """Note that a request failed by a fault of the version."""
        self._window(name, version).requests.add(self._clock(), _FAULT)

    def compared(self, name: str, version: int, incumbent: int, differs: bool) -> None:
        """Note whether a version's answer to a request differs from the incumbent's."""
        window = self._window(name, version)
        if incumbent not in window.compared:
            # Comparisons with an earlier incumbent say nothing about this one.
            window.compared = {incumbent: RecentSamples()}
        window.compared[incumbent].add(self._clock(), float(differs))

    def figures(self, name: str, version: int, window_seconds: float) -> VersionFigures:
        """Return the requests of a version in the last `window_seconds`."""
        window = self._windows.get((name, version))
        if window is None:
            return VersionFigures()
        recent = window.requests.since(self._clock() - window_seconds)
        answered = [seconds for seconds in recent if seconds != _FAULT]
        return VersionFigures(answered, len(recent) - len(answered))

    def comparison(self, name: str, version: int, incumbent: int, window_seconds: float) -> ComparisonFigures:
        """Return the comparisons of a version with an incumbent in the last `window_seconds`."""
        window = self._windows.get((name, version))
        samples = None if window is None else window.compared.get(incumbent)
        if samples is None:
            return ComparisonFigures()
        recent = samples.since(self._clock() - window_seconds)
        return ComparisonFigures(len(recent), int(sum(recent)))

    def forget(self, name: str, version: int) -> None:
        """Forget a version, so that it is judged anew."""
        self._windows.pop((name, version), None)

    def _window(self, name: str, version: int) -> VersionWindow:
        window = self._windows.get((name, version))
        if window is None:
            window = self._windows[name, version] = VersionWindow()
            if len(self._windows) > self._most:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end((name, version))
        return window
