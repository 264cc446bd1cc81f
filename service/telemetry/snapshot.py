"""A look at a server's /metrics, and what was counted between two."""

from __future__ import annotations

from math import inf, isinf

from prometheus_client.parser import text_string_to_metric_families

from rootstock.adapters.client.errors import Unreadable

Labels = frozenset[tuple[str, str]]


class MetricsSnapshot:
    """A server's metrics at one moment. Unreadable for a page that is not a Rootstock server's."""

    def __init__(self, page: str, at: float) -> None:
        self.at = at
        self._samples: dict[str, dict[Labels, float]] = {}
        try:
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    labels = frozenset(sample.labels.items())
                    self._samples.setdefault(sample.name, {})[labels] = sample.value
        except ValueError as error:
            raise Unreadable(f"/metrics is not in Prometheus's format: {error}") from None
        if "rootstock_ready" not in self._samples:
            raise Unreadable("/metrics has no rootstock_ready: is this a Rootstock server of this version?")

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        wanted = labels.items()
        return sum(
            value for given, value in self._samples.get(f"rootstock_{name}", {}).items() if given >= wanted
        )

    def values(self, name: str, label: str) -> set[str]:
        """Return the values of a label."""
        return {dict(given)[label] for given in self._samples.get(f"rootstock_{name}", {})}


class SnapshotDifference:
    """The counts between two looks. A counter that is smaller in the second began anew with the server."""

    def __init__(self, before: MetricsSnapshot, after: MetricsSnapshot) -> None:
        self.after = after
        self.seconds = max(after.at - before.at, 1e-9)
        started = "process_start_time_seconds"
        self._before = before if before.sum(started) == after.sum(started) else None

    def count(self, name: str, **labels: str) -> float:
        """Return by how much a counter grew."""
        before = 0.0 if self._before is None else self._before.sum(name, **labels)
        return max(0.0, self.after.sum(name, **labels) - before)

    def rate(self, name: str, **labels: str) -> float:
        """Return by how much it grew a second."""
        return self.count(name, **labels) / self.seconds

    def mean(self, name: str, **labels: str) -> float | None:
        """Return the mean of what a histogram observed."""
        observed = self.count(f"{name}_count", **labels)
        return self.count(f"{name}_sum", **labels) / observed if observed else None

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Return a quantile as Prometheus's histogram_quantile gives it: linear within its bucket."""
        bounds = sorted(self.after.values(f"{name}_bucket", "le"), key=float)
        counts = [(float(le), self.count(f"{name}_bucket", le=le, **labels)) for le in bounds]
        if not counts or not counts[-1][1]:
            return None
        wanted = share * counts[-1][1]
        low, under = 0.0, 0.0
        for bound, count in counts:
            if count >= wanted:
                return low if isinf(bound) else low + (bound - low) * (wanted - under) / ((count - under) or inf)
            low, under = bound, count
        return low
