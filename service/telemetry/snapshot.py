"""Snapshots of a server's /metrics, and the difference between two of them."""

from __future__ import annotations

from math import inf, isinf

from prometheus_client.parser import text_string_to_metric_families

from rootstock.adapters.client.errors import Unreadable

Labels = frozenset[tuple[str, str]]


class MetricsSnapshot:
    """A server's metrics at one moment.

    The constructor raises Unreadable for a page that does not come from a Rootstock server.
    """

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
            raise Unreadable(
                "/metrics has no rootstock_ready; give the URL of a Rootstock server of this version"
            )

    @property
    def whole(self) -> bool:
        """Tell whether the page has the figures of adapters, which a keyed server gives its operator alone."""
        return "rootstock_slots_used" in self._samples

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of the metric's samples that have these labels."""
        pairs = labels.items()
        return sum(
            value for all_of, value in self._samples.get(f"rootstock_{name}", {}).items() if all_of >= pairs
        )

    def least(self, name: str) -> float:
        """Return the least value of the metric's samples, 0 without any."""
        return min(self._samples.get(f"rootstock_{name}", {}).values(), default=0.0)

    def values(self, name: str, label: str) -> list[str]:
        """Return the values of a label of the metric, each once, in the order of the page."""
        return list(dict.fromkeys(dict(pairs)[label] for pairs in self._samples.get(f"rootstock_{name}", {})))

    def labels(self, name: str) -> list[dict[str, str]]:
        """Return the labels of each of the metric's samples, in the order of the page."""
        return [dict(pairs) for pairs in self._samples.get(f"rootstock_{name}", {})]

    def starts(self) -> dict[Labels, float]:
        """Return the start of each process on the page, by the labels that tell its series from others."""
        return self._samples.get("rootstock_process_start_time_seconds", {frozenset(): 0.0})


class SnapshotDifference:
    """The difference between two snapshots. The counters of a process that started between them begin at 0."""

    def __init__(self, before: MetricsSnapshot, after: MetricsSnapshot) -> None:
        self.after = after
        self.seconds = max(after.at - before.at, 1e-9)
        self._before = before
        started = before.starts()
        self._stayed = [dict(one) for one, start in after.starts().items() if started.get(one) == start]

    def count(self, name: str, **labels: str) -> float:
        """Return the growth of a counter."""
        before = sum(self._before.sum(name, **labels, **one) for one in self._stayed)
        return max(0.0, self.after.sum(name, **labels) - before)

    def rate(self, name: str, **labels: str) -> float:
        """Return the growth of a counter per second."""
        return self.count(name, **labels) / self.seconds

    def mean(self, name: str, **labels: str) -> float | None:
        """Return the mean of a histogram's observations, or None if it has none."""
        observed = self.count(f"{name}_count", **labels)
        return self.count(f"{name}_sum", **labels) / observed if observed else None

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Return a quantile as Prometheus's histogram_quantile does, linear within a bucket; None if empty."""
        bounds = sorted(self.after.values(f"{name}_bucket", "le"), key=float)
        counts = [(float(le), self.count(f"{name}_bucket", le=le, **labels)) for le in bounds]
        if not counts or not counts[-1][1]:
            return None
        rank = share * counts[-1][1]
        low, under = 0.0, 0.0
        for bound, count in counts:
            if count >= rank:
                return low if isinf(bound) else low + (bound - low) * (rank - under) / ((count - under) or inf)
            low, under = bound, count
        return low
