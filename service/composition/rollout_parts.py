"""Opens what shadows requests and takes back versions by their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rootstock.adapters.registry.port import RolloutRegistry
    from rootstock.service.engine.core.observer import Observer
    from rootstock.service.foundations import Foundations
    from rootstock.service.pins import Pins
    from rootstock.service.rollout.rollout_watcher import RolloutWatcher
    from rootstock.service.rollout.shadow_traffic import ShadowTraffic
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
        self._shadows: ShadowTraffic | None = None
        self._watcher: RolloutWatcher | None = None
        self.observer: Observer = GenerationTraffic(self._table, self._windows)

    async def start(self, foundations: Foundations, pins: Pins, most_shadows: int) -> RolloutWatcher:
        """Watch the requests for `live`, and begin to judge; return the watcher."""
        from rootstock.service.rollout.live_traffic import LiveTraffic
        from rootstock.service.rollout.rollout_watcher import RolloutWatcher
        from rootstock.service.rollout.shadow_traffic import ShadowTraffic

        self._shadows = ShadowTraffic(foundations.shadow, self._windows, self._metrics, most_shadows)
        foundations.watch = LiveTraffic(self._table, self._windows, self._shadows)
        self._watcher = RolloutWatcher(self._registry, self._table, self._windows, self._metrics, pins.moved)
        await self._watcher.start()
        return self._watcher

    async def close(self) -> None:
        """End the judgement, and cancel the shadows under way."""
        if self._watcher is not None:
            await self._watcher.close()
        if self._shadows is not None:
            await self._shadows.close()
