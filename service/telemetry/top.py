"""The view of `rootstock top`: the work of a server between two snapshots of its /metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import AccessDenied, NotFound, Unreadable
from rootstock.adapters.errors import InvalidName
from rootstock.adapters.reference import FOUNDATION
from rootstock.service.telemetry.snapshot import MetricsSnapshot, SnapshotDifference
from rootstock.service.telemetry.traffic import OTHER

_MAX_ADAPTERS = 10
_TIERS = ("memory", "slot")
_FIGURES = ("queue_items", "queue_tokens", "slots_used", "cache_adapters", "cache_bytes")


@dataclass(frozen=True)
class AdapterTraffic:
    """One adapter's figures over the last interval: answers per second, p99 in ms, share of the runner's time.

    `answers` counts from the server's start. `live` is the live version and `residency` its place: "slot",
    "memory" or "store".
    """

    name: str
    answers_per_s: float
    answers: int
    p99_ms: float | None
    share: float
    live: int | None
    residency: str | None


@dataclass(frozen=True)
class FoundationLoad:
    """One foundation's model and runner, and its queue, slots and cache at the second snapshot."""

    name: str
    model: str
    runner: str
    precision: str
    queue_items: int
    queue_tokens: int
    slots_used: int
    cache_adapters: int
    cache_bytes: int


@dataclass(frozen=True)
class Totals:
    """The work of a server, or of all replicas, since its start: `seconds` ago, by this machine's clock.

    `answers` and `tokens` are those of inputs, `texts` and `generated_tokens` those of generated answers.
    """

    seconds: float
    answers: int
    tokens: int
    texts: int
    generated_tokens: int
    failed: int
    refused: int


@dataclass(frozen=True)
class Frame:
    """The work of a server between two snapshots. Rates are per second, times in ms; None if nothing happened."""

    seconds: float
    ready: bool
    answers_per_s: float
    failed_per_s: float
    refused_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    queue_ms: float | None
    inference_ms: float | None
    queue_items: int
    queue_items_limit: int
    batches_per_s: float
    batch_rows: float | None
    batch_adapters: float | None
    tokens_per_s: float
    padding: float | None
    generated_per_s: float
    sequences: int
    sequences_running: int
    slots_used: int
    slots_limit: int
    cache_adapters: int
    cache_bytes: int
    cache_bytes_limit: int
    loads_per_s: Mapping[str, float]
    evictions_per_s: Mapping[str, float]
    memory_bytes: int
    totals: Totals
    foundations: Sequence[FoundationLoad]
    adapters: Sequence[AdapterTraffic]


def frames(client: Client, interval: float, ended: Callable[[float], bool]) -> Iterator[Frame]:
    """Yield a frame every `interval` seconds, until `ended` returns true.

    `ended` waits for the seconds that it is given; it may return true before they are over. Raise ClientError if
    no Rootstock server answers, or if it does not give this client the figures of adapters.
    """
    before = MetricsSnapshot(client.metrics(), time.monotonic())
    if not before.whole:
        raise Unreadable(
            "/metrics has no figures of adapters: a server with keys shows them to its operator alone; give the "
            "server's admin key"
        )
    while not ended(interval):
        after = MetricsSnapshot(client.metrics(), time.monotonic())
        yield frame(SnapshotDifference(before, after), client)
        before = after


def frame(over: SnapshotDifference, client: Client) -> Frame:
    """Return the work between two snapshots, with the versions and residency that the server lists."""
    after = over.after
    tokens, padding = over.count("batch_tokens_sum"), over.count("padding_tokens_total")
    whole = {"stage": "total"}
    return Frame(
        seconds=over.seconds,
        ready=after.least("ready") == 1,
        answers_per_s=over.rate("latency_seconds_count", **whole),
        failed_per_s=over.rate("failures_total"),
        refused_per_s=over.rate("refused_total"),
        p50_ms=_ms(over.quantile(0.5, "latency_seconds", **whole)),
        p99_ms=_ms(over.quantile(0.99, "latency_seconds", **whole)),
        queue_ms=_ms(over.mean("latency_seconds", stage="queue")),
        inference_ms=_ms(over.mean("latency_seconds", stage="inference")),
        queue_items=int(after.sum("queue_items")),
        queue_items_limit=int(after.sum("queue_items_limit")),
        batches_per_s=over.rate("batch_rows_count"),
        batch_rows=over.mean("batch_rows"),
        batch_adapters=over.mean("batch_adapters"),
        tokens_per_s=tokens / over.seconds,
        padding=padding / (tokens + padding) if tokens else None,
        generated_per_s=over.rate("generated_tokens_total"),
        sequences=int(after.sum("sequences")),
        sequences_running=int(after.sum("sequences_running")),
        slots_used=int(after.sum("slots_used")),
        slots_limit=int(after.sum("slots_limit")),
        cache_adapters=int(after.sum("cache_adapters")),
        cache_bytes=int(after.sum("cache_bytes")),
        cache_bytes_limit=int(after.sum("cache_bytes_limit")),
        loads_per_s={tier: over.rate("loads_total", tier=tier, result="ok") for tier in _TIERS},
        evictions_per_s={tier: over.rate("evictions_total", tier=tier) for tier in _TIERS},
        memory_bytes=int(after.sum("process_resident_memory_bytes")),
        totals=_totals(after),
        foundations=_foundations(after),
        adapters=_adapters(over, client),
    )


def _totals(after: MetricsSnapshot) -> Totals:
    return Totals(
        seconds=max(0.0, time.time() - after.least("process_start_time_seconds")),
        answers=int(after.sum("latency_seconds_count", stage="total")),
        tokens=int(after.sum("batch_tokens_sum")),
        texts=int(after.sum("first_token_seconds_count")),
        generated_tokens=int(after.sum("generated_tokens_total")),
        failed=int(after.sum("failures_total")),
        refused=int(after.sum("refused_total")),
    )


def _foundations(after: MetricsSnapshot) -> list[FoundationLoad]:
    """Return the foundations in the order of the settings, as the page lists them.

    On a page of several replicas each foundation has the figures of all together.
    """
    loads = []
    for name, labels in {labels["name"]: labels for labels in after.labels("server_info")}.items():
        figures = {figure: int(after.sum(figure, foundation=name)) for figure in _FIGURES}
        loads.append(FoundationLoad(name, labels["foundation"], labels["runner"], labels["precision"], **figures))
    return loads


def _adapters(over: SnapshotDifference, client: Client) -> list[AdapterTraffic]:
    """Return the adapters with the most answers, then the first ones of the list without answers; 10 at most."""
    names = over.after.values("latency_seconds_count", "adapter")
    rates = {name: over.rate("latency_seconds_count", adapter=name, stage="total") for name in names}
    busy = sorted((name for name in names if rates[name]), key=lambda name: (-rates[name], name))[:_MAX_ADAPTERS]
    listed = _listed(client, busy)
    whole = over.count("adapter_compute_seconds_total")
    rows = []
    for name in [*busy, *(name for name in listed if name not in busy)][:_MAX_ADAPTERS]:
        share = over.count("adapter_compute_seconds_total", adapter=name) / whole if whole else 0.0
        p99 = over.quantile(0.99, "latency_seconds", adapter=name, stage="total")
        answers = int(over.after.sum("latency_seconds_count", adapter=name, stage="total"))
        place = listed.get(name, (None, None))
        rows.append(AdapterTraffic(name, rates.get(name, 0.0), answers, _ms(p99), share, *place))
    return rows


def _listed(client: Client, busy: Sequence[str]) -> dict[str, tuple[int | None, str | None]]:
    """Return live version and residency of the first adapters by name and of the busy ones.

    Return nothing if the server refuses the key.
    """
    try:
        adapters = {
            a.name: (a.live, a.residency) for a in islice(client.list(limit=_MAX_ADAPTERS), _MAX_ADAPTERS)
        }
        for name in busy:
            if name not in adapters and name not in (FOUNDATION, OTHER):
                adapters[name] = _of(client, name)
    except AccessDenied:
        return {}
    return adapters


def _of(client: Client, name: str) -> tuple[int | None, str | None]:
    try:
        adapter = client.show(name)
    except (NotFound, InvalidName):
        return None, None  # The adapter has been deleted, or is another tenant's.
    live = adapter.live
    return live, next((one.residency for one in adapter.versions if one.version == live), None)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
