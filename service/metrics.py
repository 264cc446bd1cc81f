"""What the server counts, in Prometheus's form. Names begin with rootstock_; labels are bounded."""

from __future__ import annotations

import os

# In multiprocess mode, which BentoML switches on for its workers, prometheus_client cannot remove a series and
# keeps files on disk; there is one worker process, so the mode is left before its import.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.engine.observer import BatchStats

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """One server's metrics; also the engine's observer."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "rootstock_requests",
            "HTTP requests by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "rootstock_request_seconds",
            "Time to answer, by route.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._rows = Histogram(
            "rootstock_batch_rows", "Inputs in a batch.", buckets=_SIZES, registry=self.registry
        )
        self._adapters = Histogram(
            "rootstock_batch_adapters", "Distinct adapters in a batch.", buckets=_SIZES, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "rootstock_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=self.registry
        )
        self._waits = Histogram(
            "rootstock_queue_seconds",
            "Time from a request's arrival to its first batch, by priority.",
            ["priority"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter("rootstock_batch_tokens", "Tokens run, without padding.", registry=self.registry)
        self._padding = Counter("rootstock_padding_tokens", "Padding run.", registry=self.registry)
        self._refused = Counter(
            "rootstock_refused", "Requests not admitted, by reason.", ["reason"], registry=self.registry
        )
        self._verifications = Counter(
            "rootstock_verifications", "Uploads by the check that ended them.", ["result"], registry=self.registry
        )
        self.waiting_items = Gauge("rootstock_queue_items", "Inputs that wait.", registry=self.registry)
        self.waiting_tokens = Gauge("rootstock_queue_tokens", "Tokens that wait.", registry=self.registry)
        self.resident = Gauge("rootstock_slots_used", "Adapters in a slot.", registry=self.registry)
        self.loads = Gauge("rootstock_slot_loads", "Adapters put into a slot so far.", registry=self.registry)
        self.evictions = Gauge("rootstock_slot_evictions", "Adapters taken out so far.", registry=self.registry)
        self.cache_bytes = Gauge("rootstock_cache_bytes", "Adapters in host memory.", registry=self.registry)

    def batch(self, stats: BatchStats) -> None:
        """A batch was run."""
        self._rows.observe(stats.rows)
        self._adapters.observe(stats.adapters)
        self._batch_seconds.observe(stats.seconds)
        self._tokens.inc(stats.tokens)
        self._padding.inc(stats.padded - stats.tokens)
        for priority, seconds in stats.waits:
            self._waits.labels(priority).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was not admitted."""
        self._refused.labels(reason).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered; `route` is the route's template, never a raw path."""
        self._requests.labels(route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def verified(self, result: str) -> None:
        """An upload was verified: "passed" or the check that refused it."""
        self._verifications.labels(result).inc()

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
