"""Opens a server: its home, its foundations, its publisher and its pins.

A caller may replace a part by keyword. Heavy modules are imported when a server opens, because BentoML's parent
process imports this module too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rootstock.service.composition.demo_adapters import register_demo
from rootstock.service.composition.foundation_parts import open_foundation
from rootstock.service.composition.runner_parts import OpenRunner, open_runner
from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from rootstock.adapters.registry import SqlRegistry
    from rootstock.adapters.store.port import Store
    from rootstock.service.api.server import Server
    from rootstock.service.foundations import FoundationHost
    from rootstock.service.telemetry.metrics import Metrics
    from rootstock.service.telemetry.tracing import Tracing

_MIB = 2**20


@asynccontextmanager
async def open_server(
    settings: Settings,
    *,
    span_exporters: Sequence[SpanExporter] | None = None,
    open_runner: OpenRunner = open_runner,
    registry: SqlRegistry | None = None,
    store: Store | None = None,
) -> AsyncIterator[Server]:
    """Open and start a server's parts; at the end, finish the admitted requests and close the parts.

    If `span_exporters` is None, the environment chooses them. Raise HomeInUse if another program uses the home.
    Only the process that serves calls this, so that it holds the home.
    """
    from rootstock.adapters.home.home import Home
    from rootstock.service.telemetry.span_exporters import find_exporters

    if span_exporters is None:
        span_exporters = [entry.load()() for entry in find_exporters()]
    home = Home(settings.home_folder)
    with home.hold("rootstock serve"):
        registry = registry or home.open_registry()
        try:
            async with (
                _traced(span_exporters) as tracing,
                _serving(settings, registry, store or home.open_store(), open_runner, tracing) as server,
            ):
                yield server
        finally:
            registry.close()


@asynccontextmanager
async def _traced(exporters: Sequence[SpanExporter]) -> AsyncIterator[Tracing | None]:
    """Yield the observer that makes spans, or None without exporters: then OpenTelemetry is not imported."""
    if not exporters:
        yield None
        return
    from rootstock.service.telemetry.tracing import Tracing

    tracing = Tracing(exporters)
    try:
        yield tracing
    finally:
        await asyncio.to_thread(tracing.close)


@asynccontextmanager
async def _serving(
    settings: Settings, registry: SqlRegistry, store: Store, open_runner: OpenRunner, tracing: Tracing | None
) -> AsyncIterator[Server]:
    from rootstock.service.adapter_folder import AdapterFolder
    from rootstock.service.api.media.remote_file import RemoteFiles
    from rootstock.service.api.server import Server
    from rootstock.service.engine.core.arbiter import Arbiter
    from rootstock.service.engine.core.observer import Observers
    from rootstock.service.foundations import Foundations
    from rootstock.service.pins import Pins
    from rootstock.service.publishing import Publisher
    from rootstock.service.telemetry.metrics import Metrics

    metrics = Metrics()
    limits = settings.bundle_limits
    observer = metrics if tracing is None else Observers(metrics, tracing)
    arbiter = Arbiter()
    hosts: list[FoundationHost] = []
    try:
        for name, setting in settings.hosted.items():
            hosts.append(
                await open_foundation(
                    name, setting, settings, registry, store, limits, open_runner, observer, arbiter
                )
            )
        _start(hosts, metrics)
        foundations = Foundations(hosts, registry, settings.names)
        publisher = Publisher(foundations, registry, store, limits, metrics)
        pins = Pins(foundations, registry, settings.pinned)
        try:
            if settings.demo:
                await register_demo(publisher, registry)
            await pins.follow()
            yield Server(
                foundations=foundations,
                registry=registry,
                every_tenant=registry,
                publisher=publisher,
                pins=pins,
                metrics=metrics,
                bundle_limits=limits,
                adapter_folder=AdapterFolder(settings.adapter_folder, limits),
                max_body_bytes=settings.max_body_mb * _MIB,
                remote_files=RemoteFiles(settings.media_host_names),
                tracing=tracing,
            )
        finally:
            await pins.close()
    finally:
        engines = [engine for host in hosts for engine in host.engines if engine.started]
        await asyncio.gather(*(asyncio.to_thread(engine.stop) for engine in engines))


def _start(hosts: Sequence[FoundationHost], metrics: Metrics) -> None:
    for host in hosts:
        metrics.watch(host.name, host.engines)
        for engine in host.engines:
            engine.start()
