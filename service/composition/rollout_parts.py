"""Opens what shadows requests and takes back versions by their rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootstock.adapters.registry.port import RolloutRegistry
    from rootstock.service.engine.core.observer import Observer
    from rootstock.service.foundations import Foundations
    from rootstock.service.pins import Pins
    from rootstock.service.rollout.rollout_watcher import RolloutWatcher
    from rootstock.service.telemetry.metrics import Metrics


class RolloutParts:
    """The parts that share what they know of the adapters with a shadow or a rollback rule.

    `observer` takes part in the observation of engines, so it is there before the foundations.
    """

    def __init__(self, registry: RolloutRegistry, metrics: Metrics) -> None:
        from rootstock.service.rollout.live_traffic import GenerationTraffic
        from rootstock.service.rollout.rollout_table import RolloutTable
        from rootstock.service.rollout.version_windows import VersionWindows

        self._registry = registry
        self._metrics = metrics
        self._table = RolloutTable(registry)
        self._windows = VersionWindows()
        self.observer: Observer = GenerationTraffic(self._table, self._windows)

    @asynccontextmanager
    async def watching(
        self, foundations: Foundations, pins: Pins, most_shadows: int
    ) -> AsyncIterator[RolloutWatcher]:
        """Watch the requests for `live`, and judge them until the end of the block; yield the watcher."""
        from rootstock.service.rollout.live_traffic import LiveTraffic
        from rootstock.service.rollout.rollout_watcher import RolloutWatcher
        from rootstock.service.rollout.shadow_traffic import ShadowTraffic

        shadows = ShadowTraffic(foundations.shadow, self._windows, self._metrics, most_shadows)
        foundations.watch = LiveTraffic(self._table, self._windows, shadows)
        watcher = RolloutWatcher(self._registry, self._table, self._windows, self._metrics, pins.moved)
        try:
            await watcher.start()
            yield watcher
        finally:
            await watcher.close()
            await shadows.close()
