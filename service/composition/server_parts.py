"""Opens a server: its home, its foundations, its publisher and its pins.

A caller may replace a part by keyword. Heavy modules are imported when a server opens, because BentoML's parent
process imports this module too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from rootstock.service.composition.access_parts import open_access
from rootstock.service.composition.demo_adapters import register_demo
from rootstock.service.composition.foundation_parts import open_foundation
from rootstock.service.composition.process_parts import following, open_place, serving_together, take_marks
from rootstock.service.composition.quota_parts import open_quotas
from rootstock.service.composition.rollout_parts import RolloutParts
from rootstock.service.composition.runner_parts import OpenRunner, open_runner
from rootstock.service.composition.webhook_parts import deliver_events
from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from rootstock.adapters.home.home import Home
    from rootstock.adapters.home.journal import BundleJournal
    from rootstock.adapters.registry import SqlRegistry
    from rootstock.adapters.registry.port import Registry
    from rootstock.adapters.store.port import Store
    from rootstock.service.api.server import Server
    from rootstock.service.engine.core.observer import Observer
    from rootstock.service.foundation_host import FoundationHost
    from rootstock.service.foundations import Foundations
    from rootstock.service.lifecycle.deletions import Deletions
    from rootstock.service.pins import Pins
    from rootstock.service.telemetry.metrics import Metrics
    from rootstock.service.telemetry.tracing import Tracing
    from rootstock.service.tenancy.access import Access

_MIB = 2**20
# Another server on the same registry stops resolving a deleted version within this time.
_NOTICE_SECONDS = 5.0


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

    If `span_exporters` is None, the environment chooses them. Raise HomeInUse if another program uses the home,
    and SettingsError if strangers could use the server. Only the process that serves calls this, so that it holds
    the home.
    """
    from rootstock.adapters.home.home import Home
    from rootstock.service.telemetry.span_exporters import find_exporters

    if span_exporters is None:
        span_exporters = [entry.load()() for entry in find_exporters()]
    home = Home(settings.home_folder)
    with (
        home.hold("rootstock serve"),
        open_place(settings, home) as place,
        closing(registry or home.open_registry(settings.registry_address)) as opened,
    ):
        store = store or home.open_store(settings.store_url)
        journal = place.journal(opened, store)
        await asyncio.to_thread(take_marks, home, place, journal)
        await asyncio.to_thread(_settle, home, journal, opened, store, settings.shares_registry)
        with open_access(settings, opened.keys) as access:
            async with (
                _traced(span_exporters) as tracing,
                _serving(settings, opened, store, journal, open_runner, tracing, access) as server,
                serving_together(settings, home, place, server),
            ):
                yield server


def _settle(home: Home, journal: BundleJournal, registry: Registry, store: Store, shared: bool) -> None:
    """End the changes that a killed server began. Raise RegistryLost if the store has lost its registry.

    With a shared registry, the deletions of the server end them later: others may still use what is deleted.
    """
    from rootstock.adapters.home.home import check_not_lost, is_used

    log = structlog.get_logger()
    if (not shared or not is_used(registry)) and (removed := journal.settle()):
        log.warning("bundles of interrupted uploads removed", count=removed)
    check_not_lost(registry, store, home.marked())
    if home.is_open_to_others:
        log.warning("other users of this machine can read the home", remedy=f"chmod -R go= {home.folder}")


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
    settings: Settings,
    registry: SqlRegistry,
    store: Store,
    journal: BundleJournal,
    open_runner: OpenRunner,
    tracing: Tracing | None,
    access: Access,
) -> AsyncIterator[Server]:
    from rootstock.adapters.sources.remote.remote_sources import RemoteSources, trusted_hub
    from rootstock.adapters.sources.remote.source_hosts import SourceHosts
    from rootstock.service.adapter_folder import AdapterFolder
    from rootstock.service.api.media.remote_file import RemoteFiles
    from rootstock.service.api.server import Server
    from rootstock.service.engine.core.observer import Observers
    from rootstock.service.foundations import Foundations
    from rootstock.service.lifecycle.approval import Approval
    from rootstock.service.publishing import Publisher
    from rootstock.service.routing.route import RoutingRule
    from rootstock.service.routing.router import Router
    from rootstock.service.telemetry.metrics import Metrics
    from rootstock.service.tenancy.quotas import TokenCharges

    metrics, limits = Metrics(), settings.bundle_limits
    rollout = RolloutParts(registry, metrics)
    observer = Observers(metrics, TokenCharges(), rollout.observer, *(() if tracing is None else (tracing,)))
    async with _hosting(settings, registry, store, open_runner, observer, metrics) as hosts:
        foundations = Foundations(hosts, registry, settings.names, metrics.replaced)
        _export_to_gateways(settings, hosts, registry, metrics)
        async with (
            _deleting(settings, foundations, registry, journal, metrics) as deletions,
            _pinning(settings, foundations, registry) as pins,
            deliver_events(settings, registry.webhooks, metrics),
            open_quotas(access.ring, registry.quota_uses if settings.shares_registry else None) as quotas,
            following(settings, registry, pins),
        ):
            publisher = Publisher(foundations, registry, journal, limits, metrics, settings.trusted, deletions)
            if settings.demo:
                await register_demo(publisher, registry)
            await pins.follow()
            deletions.start(journal.left() if settings.shares_registry else ())
            hosts_of_sources = SourceHosts.parse(settings.source_hosts, trusted_hub(settings.source_hosts))
            async with rollout.watching(foundations, pins, settings.shadow_requests) as watcher:
                yield Server(
                    foundations=foundations,
                    registry=registry,
                    every_tenant=registry,
                    publisher=publisher,
                    deletions=deletions,
                    approval=Approval(settings.approval),
                    pins=pins,
                    metrics=metrics,
                    bundle_limits=limits,
                    adapter_folder=AdapterFolder(settings.adapter_folder, limits),
                    max_body_bytes=settings.max_body_mb * _MIB,
                    remote_files=RemoteFiles(settings.media_host_names),
                    access=access,
                    quotas=quotas,
                    sources=RemoteSources(hosts_of_sources, limits),
                    rollout=watcher,
                    router=Router(
                        settings.router or None,
                        RoutingRule(settings.router_threshold, settings.router_fallback or None),
                    ),
                    tracing=tracing,
                )


@asynccontextmanager
async def _hosting(
    settings: Settings,
    registry: SqlRegistry,
    store: Store,
    open_runner: OpenRunner,
    observer: Observer,
    metrics: Metrics,
) -> AsyncIterator[list[FoundationHost]]:
    """Open the foundations and start their engines; at the end, stop these."""
    from rootstock.service.engine.core.arbiter import Arbiter

    arbiter, limits = Arbiter(), settings.bundle_limits
    hosts: list[FoundationHost] = []
    try:
        for name, setting in settings.hosted.items():
            hosts.append(
                await open_foundation(
                    name, setting, settings, registry, store, limits, open_runner, observer, arbiter
                )
            )
        for host in hosts:
            metrics.watch(host.name, host.engines)
            for engine in host.engines:
                engine.start()
        yield hosts
    finally:
        engines = [engine for host in hosts for engine in host.engines if engine.started]
        await asyncio.gather(*(asyncio.to_thread(engine.stop) for engine in engines))


def _export_to_gateways(
    settings: Settings, hosts: Sequence[FoundationHost], registry: SqlRegistry, metrics: Metrics
) -> None:
    if settings.gateway_metrics == "off":
        return
    from rootstock.service.telemetry.gateway_metrics import export_to_gateways

    engines = [engine for host in hosts for engine in host.engines]
    to_operator = metrics.of_operator if settings.gateway_metrics == "admin" else None
    export_to_gateways(engines, registry, settings.names, metrics.registry, to_operator)


@asynccontextmanager
async def _deleting(
    settings: Settings, foundations: Foundations, registry: SqlRegistry, journal: BundleJournal, metrics: Metrics
) -> AsyncIterator[Deletions]:
    from rootstock.service.lifecycle.deletions import Deletions

    deletions = Deletions(
        foundations,
        registry,
        registry,
        journal,
        metrics,
        undelete_days=settings.undelete_days,
        keep_versions=settings.keep_versions,
        removal_delay=settings.request_timeout + _NOTICE_SECONDS if settings.shares_registry else 0.0,
    )
    try:
        yield deletions
    finally:
        await deletions.close()


@asynccontextmanager
async def _pinning(settings: Settings, foundations: Foundations, registry: SqlRegistry) -> AsyncIterator[Pins]:
    """Yield the pins, which follow the changes that other servers make."""
    from rootstock.service.pins import Pins

    pins = Pins(foundations, registry, settings.pinned)
    registry.subscribe(partial(_pass_on, asyncio.get_running_loop(), pins))
    try:
        yield pins
    finally:
        await pins.close()


def _pass_on(loop: asyncio.AbstractEventLoop, pins: Pins) -> None:
    """Let the pins follow a change that another server made. A thread of the registry calls this."""
    with suppress(RuntimeError):  # The loop may have been closed in the meantime.
        loop.call_soon_threadsafe(pins.moved)
