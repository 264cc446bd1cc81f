"""Metrics for gateways that route by adapter, under the names that vLLM gives them.

The names, labels and values follow the model server protocol of the Gateway API inference extension (its
proposal 003), whose endpoint picker reads them, as llm-d's does. A reader takes one series of each name, so each
is the sum over the server's engines.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rootstock.adapters.errors import RegistryUnavailable, StoreFull
from rootstock.adapters.reference import DEFAULT_TENANT
from rootstock.adapters.registry.port import ReferenceIndex
from rootstock.service.engine.encode.engine import Engine
from rootstock.service.engine.generate.engine import GenerationEngine

# The references in a list, so that the same bytes under thousands of names make no label of megabytes.
MOST_REFERENCES = 1024
_LABELS = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")


class GatewayLoad(Collector):
    """The requests that wait and run, and the use of the memory for keys and values."""

    def __init__(self, engines: Sequence[Engine | GenerationEngine]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the gauges as they are now."""
        calls = [engine.admission.calls() for engine in self._engines]
        waiting, running = (sum(counts) for counts in zip(*calls, strict=True))
        yield _gauge("num_requests_waiting", "Requests of which a part waits for its first turn.", waiting)
        yield _gauge("num_requests_running", "Requests of which all parts have begun.", running)
        usage = self._cache_usage()
        text = "Share of the room for keys and values that sequences use, 0 to 1."
        yield _gauge("kv_cache_usage_perc", text, usage)
        yield _gauge("gpu_cache_usage_perc", f"{text} The earlier name of vllm:kv_cache_usage_perc.", usage)

    def _cache_usage(self) -> float:
        caches = [e.runner.cache for e in self._engines if isinstance(e, GenerationEngine)]
        capacity = sum(cache.capacity for cache in caches)
        return sum(cache.used for cache in caches) / capacity if capacity else 0.0


class GatewayResidency(Collector):
    """The references of the adapters in slots, and of those that requests wait for.

    With `tenant`, only that tenant's adapters are listed. `served` holds other names of models, each with its
    reference.
    """

    def __init__(
        self,
        engines: Sequence[Engine | GenerationEngine],
        index: ReferenceIndex,
        served: Mapping[str, str],
        tenant: str | None = None,
    ) -> None:
        self._engines = engines
        self._references = _KnownReferences(index, served, tenant)
        # One slot of an engine holds the foundation and one is for verification.
        self._most = sum(engine.runner.slots - 2 for engine in engines)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield the one series, whose value is the time in seconds since 1970: the reader takes the latest."""
        resident = frozenset[str]().union(*(engine.slots.resident() for engine in self._engines))
        asked = frozenset[str]().union(*(engine.adapters.asked() for engine in self._engines))
        known = self._references.of(resident | asked)
        running = _listed(known, resident)
        # No room is left for another adapter once as many wait as there are slots, so more names tell nothing.
        waiting = [one for one in _listed(known, asked - resident) if one not in running][: self._most]
        family = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "Adapters in slots, and adapters of requests that wait for a slot.",
            labels=_LABELS,
        )
        family.add_metric([str(self._most), ",".join(running), ",".join(waiting)], time.time())
        yield family


class _KnownReferences:
    """The references that mean given digests, read again when the digests or the registry change."""

    def __init__(self, index: ReferenceIndex, served: Mapping[str, str], tenant: str | None) -> None:
        self._index = index
        self._served = served
        self._tenant = tenant
        # The last reading, with its revision and digests. Several threads may replace it at once.
        self._last: tuple[tuple[int, frozenset[str]], dict[str, list[str]]] = ((-1, frozenset()), {})

    def of(self, digests: frozenset[str]) -> Mapping[str, Sequence[str]]:
        """Return the references by digest. While the registry is away, they are those of the last reading."""
        wanted = self._index.revision, digests
        read, known = self._last
        if read == wanted:
            return known
        try:
            found = self._index.references_of(digests, MOST_REFERENCES, self._tenant) if digests else []
        except (RegistryUnavailable, StoreFull):
            return known
        known = self._by_digest(found)
        self._last = wanted, known
        return known

    def _by_digest(self, found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        known: dict[str, list[str]] = {}
        for digest, reference in found:
            others = [name for name, meant in self._served.items() if meant == reference]
            known.setdefault(digest, []).extend([reference, *others])
        return known


def export_to_gateways(
    engines: Sequence[Engine | GenerationEngine],
    index: ReferenceIndex,
    served: Mapping[str, str],
    to_everyone: CollectorRegistry,
    to_operator: CollectorRegistry | None,
) -> None:
    """Add the metrics to the page for everyone, and the lists of adapters to the operator's.

    Without a page of the operator, everyone gets the lists, with the adapters of the tenant `default` alone:
    another tenant's adapter does not exist for anyone else.
    """
    to_everyone.register(GatewayLoad(engines))
    if to_operator is None:
        to_everyone.register(GatewayResidency(engines, index, served, DEFAULT_TENANT))
    else:
        to_operator.register(GatewayResidency(engines, index, served))


def _listed(known: Mapping[str, Sequence[str]], digests: Collection[str]) -> list[str]:
    return sorted(reference for digest in digests for reference in known.get(digest, ()))


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"vllm:{name}", text, value=value)
