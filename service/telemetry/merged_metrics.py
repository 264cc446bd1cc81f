"""The metrics of several servers or processes as one page, on which a label tells them apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

T = TypeVar("T")


class MergedFamilies(Collector):
    """The families of several pages. Each series has a label with the name of its page."""

    def __init__(self, pages: Mapping[str, str], label: str) -> None:
        self._families: dict[str, Metric] = {}
        for name, page in pages.items():
            for family in text_string_to_metric_families(page):
                merged = self._families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    merged.add_sample(sample.name, {**sample.labels, label: name}, sample.value)

    def collect(self) -> Iterable[Metric]:
        """Return the families."""
        return self._families.values()


def merged_metrics(pages: Mapping[str, str], label: str) -> str:
    """Return pages of metrics in Prometheus's text format as one. `label` gives each series its page's name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MergedFamilies(pages, label))
    return generate_latest(registry).decode()


class MetricsMerges(Generic[T]):
    """The merges of one process: each runs in a thread, one at a time, and equal requests share one."""

    def __init__(self, label: str) -> None:
        """Take the label that tells the pages apart."""
        self._label = label
        self._turn = asyncio.Lock()
        self._under_way: dict[Hashable, asyncio.Task[T]] = {}

    async def shared(self, key: Hashable, page: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return a page. A caller with the key of a page that is under way gets that one."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(page())
            task.add_done_callback(lambda done: self._forget(key, done))
        # A caller that leaves ends the page of no other.
        return await asyncio.shield(task)

    async def merged(self, pages: Mapping[str, str]) -> str:
        """Return pages as one, once the merges that were asked for before are done."""
        async with self._turn:
            return await asyncio.to_thread(merged_metrics, pages, self._label)

    def _forget(self, key: Hashable, done: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            # If every caller has left, nobody else reads an error.
            done.exception()
