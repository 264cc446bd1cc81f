"""The number of replicas that a load needs, by the time that requests wait and that runners compute."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from rootstock.service.engine.core.work import PRIORITIES

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

# In a second of one replica: the seconds that requests wait, which by Little's law are the requests that wait,
# and the seconds of batches. Those of deploy/kubernetes/components/autoscaling are the same.
MOST = {"queue": 4.0, "busy": 0.7}


class ReplicaLoad:
    """The load of one replica between two readings of its metrics.

    A server that generates text has no measure `busy`: a pass for one sequence takes the runner's time as one for
    many does, so that each further replica would be busy as well.
    """

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._generates = any(
            metric.samples for metric in registry.collect() if metric.name == "rootstock_sequences"
        )
        self._read = clock(), self._sums()

    def rates(self) -> dict[str, float]:
        """Return the seconds of each sum in `MOST` for each second since the last call."""
        (before, earlier), self._read = self._read, (self._clock(), self._sums())
        now, sums = self._read
        seconds = now - before
        return {name: (sums[name] - earlier[name]) / seconds if seconds > 0 else 0.0 for name in sums}

    def _sums(self) -> dict[str, float]:
        waits = (self._sum("queue_seconds", priority=priority) for priority in PRIORITIES)
        queue = {"queue": sum(waits)}
        return queue if self._generates else {**queue, "busy": self._sum("batch_seconds")}

    def _sum(self, histogram: str, **labels: str) -> float:
        return self._registry.get_sample_value(f"rootstock_{histogram}_sum", labels) or 0.0


def replicas_by_load(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """Return the number of replicas that the load needs, and no state; Ray Serve asks for it.

    Each measure asks for a number: the requests under way, the time that they wait, and the time that runners
    compute. The largest one counts. Serve applies its delays and limits.
    """
    measured = context.aggregated_metrics or {}
    wanted = [context.total_num_requests / context.config.get_target_ongoing_requests()]
    wanted += [sum(measured.get(name, {}).values()) / most for name, most in MOST.items()]
    return max(wanted), {}
