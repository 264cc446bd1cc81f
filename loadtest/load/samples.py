"""The server's metrics and memory, once a second while it is loaded."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rootstock.loadtest.fixtures.server import ServerProcess
from rootstock.loadtest.measure.processes import has_proc, memory


@dataclass(frozen=True)
class ResourceSample:
    """Every series by name as `parse` returns them, and resident MB, at a time of the monotonic clock."""

    at: float
    values: dict[str, float]
    resident_mb: float

    def value(self, name: str) -> float | None:
        """Return the series of a name; None if the server has none."""
        return self.values.get(name)


def parse(text: str) -> dict[str, float]:
    """Return every series of an exposition by name, summed over its labels, and `name:tier` by tier.

    Histogram buckets are left out.
    """
    values: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("rootstock_") and not sample.name.endswith(("_bucket", "_created")):
                values[sample.name] += sample.value
                if (tier := sample.labels.get("tier")) is not None:
                    values[f"{sample.name}:{tier}"] += sample.value
    return dict(values)


def between(first: ResourceSample, last: ResourceSample) -> dict[str, float | None]:
    """Return the figures between two samples; None if the server has no series for it, or nothing happened.

    They are means over batches, the share of padding among the tokens run, and counts.
    """

    def growth(name: str) -> float | None:
        new, old = last.value(name), first.value(name)
        return None if new is None else new - (old or 0.0)

    def mean(name: str, scale: float = 1.0) -> float | None:
        count, total = growth(f"{name}_count"), growth(f"{name}_sum")
        return None if not count or total is None else scale * total / count

    tokens, padding = growth("rootstock_batch_tokens_sum"), growth("rootstock_padding_tokens_total")
    run = (tokens or 0.0) + (padding or 0.0)
    return {
        "batch_rows": mean("rootstock_batch_rows"),
        "batch_adapters": mean("rootstock_batch_adapters"),
        "batch_ms": mean("rootstock_batch_seconds", 1e3),
        "waited_ms": mean("rootstock_queue_seconds", 1e3),
        "padding_share": None if not run or padding is None else padding / run,
        "loads": growth("rootstock_loads_total:slot"),
        "evictions": growth("rootstock_evictions_total:slot"),
        "slots_used": last.value("rootstock_slots_used"),
        "waiting": last.value("rootstock_queue_items"),
        "sequences": last.value("rootstock_sequences_running"),
        "resident_mb": last.resident_mb,
    }


class Sampler:
    """Samples of one server, in order."""

    def __init__(self, server: ServerProcess) -> None:
        self._pid = server.pid
        self._url = f"{server.url}/metrics"
        self.samples: list[ResourceSample] = []

    def take(self, client: httpx.Client) -> None:
        """Add a sample; none if the server does not answer."""
        try:
            answer = client.get(self._url)
            resident = memory(self._pid).resident if has_proc() else float("nan")
        except (httpx.HTTPError, OSError):
            return
        if answer.status_code == 200:
            self.samples.append(ResourceSample(time.monotonic(), parse(answer.text), resident))


@contextmanager
def server_samples(server: ServerProcess, every: float = 1.0) -> Iterator[Sequence[ResourceSample]]:
    """Take a sample now, one every `every` seconds from a thread, and one at the end."""
    sampler, stop = Sampler(server), threading.Event()

    with httpx.Client(trust_env=False, timeout=30) as client:

        def work() -> None:
            while not stop.wait(every):
                sampler.take(client)

        sampler.take(client)
        thread = threading.Thread(target=work, name="sampler")
        thread.start()
        try:
            yield sampler.samples
        finally:
            stop.set()
            thread.join()
            sampler.take(client)
