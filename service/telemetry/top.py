"""The view of `rootstock top`: the work of a server between two snapshots of its /metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from rootstock.adapters.client.client import Client
from rootstock.adapters.client.errors import AccessDenied, NotFound
from rootstock.adapters.reference import FOUNDATION
from rootstock.service.telemetry.snapshot import MetricsSnapshot, SnapshotDifference
from rootstock.service.telemetry.traffic import OTHER

_MAX_ADAPTERS = 10
_MIB = 2**20
_TIERS = ("memory", "slot")


@dataclass(frozen=True)
class AdapterTraffic:
    """One adapter's figures over the last interval: answers per second, p99 in ms, share of the runner's time.

    `live` is the live version and `residency` its place: "slot", "memory" or "store".
    """

    name: str
    answers_per_s: float
    p99_ms: float | None
    share: float
    live: int | None
    residency: str | None


@dataclass(frozen=True)
class FoundationLoad:
    """One foundation's queue, slots and cache at the second snapshot."""

    name: str
    queue_items: int
    queue_tokens: int
    slots_used: int
    cache_adapters: int
    cache_bytes: int


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
    slots_used: int
    slots_limit: int
    cache_adapters: int
    cache_bytes: int
    cache_bytes_limit: int
    loads_per_s: Mapping[str, float]
    evictions_per_s: Mapping[str, float]
    memory_bytes: int
    foundations: Sequence[FoundationLoad]
    adapters: Sequence[AdapterTraffic]


def frames(client: Client, interval: float) -> Iterator[Frame]:
    """Yield a frame every `interval` seconds without end. Raise ClientError if no Rootstock server answers."""
    before = MetricsSnapshot(client.metrics(), time.monotonic())
    while True:
        time.sleep(interval)
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
        ready=after.sum("ready") == 1,
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
        slots_used=int(after.sum("slots_used")),
        slots_limit=int(after.sum("slots_limit")),
        cache_adapters=int(after.sum("cache_adapters")),
        cache_bytes=int(after.sum("cache_bytes")),
        cache_bytes_limit=int(after.sum("cache_bytes_limit")),
        loads_per_s={tier: over.rate("loads_total", tier=tier, result="ok") for tier in _TIERS},
        evictions_per_s={tier: over.rate("evictions_total", tier=tier) for tier in _TIERS},
        memory_bytes=int(after.sum("process_resident_memory_bytes")),
        foundations=_foundations(after),
        adapters=_adapters(over, client),
    )


def _foundations(after: MetricsSnapshot) -> list[FoundationLoad]:
    """Return the foundations in the order of the settings, as the page lists them."""
    figures = [field.name for field in fields(FoundationLoad)[1:]]
    return [
        FoundationLoad(name, *(int(after.sum(figure, foundation=name)) for figure in figures))
        for name in after.values("queue_items", "foundation")
    ]


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
        rows.append(AdapterTraffic(name, rates.get(name, 0.0), _ms(p99), share, *listed.get(name, (None, None))))
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
    except NotFound:
        return None, None  # The adapter has been deleted.
    live = adapter.live
    return live, next((one.residency for one in adapter.versions if one.version == live), None)


def shown(frame: Frame, url: str) -> RenderableType:
    """Return the frame as tables for a terminal."""
    numbers = Table(box=None, show_header=False, title_justify="left", padding=(0, 2, 0, 0))
    numbers.title = f"{url}  {'ready' if frame.ready else 'not ready'}"
    for line in _lines(frame):
        numbers.add_row(*line)
    if len(frame.foundations) == 1:
        return Group(numbers, _adapter_table(frame))
    foundations = Table("foundation", "queue", "tokens", "slots", "adapters", "cache", box=box.SIMPLE_HEAD)
    for f in frame.foundations:
        counts = f.queue_items, f.queue_tokens, f.slots_used, f.cache_adapters
        foundations.add_row(f.name, *map(str, counts), f"{f.cache_bytes / _MIB:.0f} MiB")
    return Group(numbers, foundations, _adapter_table(frame))


def _adapter_table(frame: Frame) -> Table:
    adapters = Table("adapter", "live", "in", "answers/s", "p99", "runner time", box=box.SIMPLE_HEAD)
    for a in frame.adapters:
        live = "-" if a.live is None else str(a.live)
        row = (f"{a.answers_per_s:.1f}", _milliseconds(a.p99_ms), _percent(a.share))
        adapters.add_row(a.name, live, a.residency or "-", *row)
    return adapters


def _lines(f: Frame) -> list[list[str]]:
    answers = [f"{f.answers_per_s:.1f}/s", f"p50 {_milliseconds(f.p50_ms)}", f"p99 {_milliseconds(f.p99_ms)}"]
    answers += [f"failed {f.failed_per_s:.1f}/s", f"refused {f.refused_per_s:.1f}/s"]
    queue = [f"{f.queue_items}/{f.queue_items_limit}", f"waiting {_milliseconds(f.queue_ms)}"]
    queue += [f"inference {_milliseconds(f.inference_ms)}"]
    batches = [f"{f.batches_per_s:.1f}/s", f"inputs {_number(f.batch_rows)}"]
    batches += [f"adapters {_number(f.batch_adapters)}", f"padding {_percent(f.padding)}"]
    batches += [f"tokens {f.tokens_per_s:.0f}/s"]
    slots = [f"{f.slots_used}/{f.slots_limit}", *_moves(f, "slot")]
    cache = [f"{f.cache_bytes / _MIB:.0f}/{f.cache_bytes_limit / _MIB:.0f} MiB", *_moves(f, "memory")]
    cache += [f"adapters {f.cache_adapters}", f"process {f.memory_bytes / _MIB:.0f} MiB"]
    return [["answers", *answers], ["queue", *queue], ["batches", *batches], ["slots", *slots], ["cache", *cache]]


def _moves(f: Frame, tier: str) -> list[str]:
    return [f"loads {f.loads_per_s[tier]:.1f}/s", f"evictions {f.evictions_per_s[tier]:.1f}/s"]


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
