"""The metrics of several replicas as one page, on which a label tells the replicas apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_LABEL = "replica"


class MergedFamilies(Collector):
    """The families of several pages. Each series has the label `replica`."""

    def __init__(self, pages: Mapping[str, str]) -> None:
        self._families: dict[str, Metric] = {}
        for replica, page in pages.items():
            for family in text_string_to_metric_families(page):
                merged = self._families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    merged.add_sample(sample.name, {**sample.labels, _LABEL: replica}, sample.value)

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families.values()


def merged_metrics(pages: Mapping[str, str]) -> str:
    """Return pages of metrics in Prometheus's text format as one, each under the name of its replica."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MergedFamilies(pages))
    return generate_latest(registry).decode()
