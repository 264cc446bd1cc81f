"""The metrics of webhooks."""

from __future__ import annotations

import time
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge


class WebhookMetrics:
    """The metrics of all receivers, which `registry` shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "rootstock_webhook_deliveries",
            "Attempts to deliver an event, by receiver and result.",
            ["receiver", "result"],
            registry=registry,
        )
        self.lag = Gauge(
            "rootstock_webhook_lag_seconds",
            "Age of the oldest event that a receiver has not taken, 0 if it has taken all.",
            ["receiver"],
            registry=registry,
        )


class ReceiverSeries:
    """The series of one receiver. `behind_since` is the time of the oldest event that it has not taken."""

    def __init__(self, metrics: WebhookMetrics, receiver: str) -> None:
        self.delivered = metrics.deliveries.labels(receiver, "delivered")
        self.failed = metrics.deliveries.labels(receiver, "failed")
        self.behind_since: datetime | None = None
        metrics.lag.labels(receiver).set_function(self._lag)

    def _lag(self) -> float:
        since = self.behind_since
        return 0.0 if since is None else max(0.0, time.time() - since.timestamp())
