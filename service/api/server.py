"""The parts of a running server that the routes call, and a tenant's view of them.

`composition` puts them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fastapi import Request

from rootstock.adapters.bundle import Limits
from rootstock.adapters.reference import DEFAULT_TENANT
from rootstock.adapters.registry import SqlRegistry, TenantRegistry
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.sources.remote.remote_sources import RemoteSources
from rootstock.service.adapter_folder import AdapterFolder
from rootstock.service.api.media.remote_file import RemoteFiles
from rootstock.service.foundations import Foundations
from rootstock.service.lifecycle.approval import Approval
from rootstock.service.lifecycle.deletions import Deletions
from rootstock.service.pins import Pins, TenantPins
from rootstock.service.publishing import Publisher
from rootstock.service.rollout.rollout_watcher import RolloutWatcher
from rootstock.service.routing.router import Router
from rootstock.service.telemetry.metrics import Metrics
from rootstock.service.tenancy.access import Access
from rootstock.service.tenancy.principal import Principal
from rootstock.service.tenancy.quotas import Quotas

if TYPE_CHECKING:
    from rootstock.service.telemetry.tracing import Tracing

# Makes a page of metrics, for the operator or for everyone.
MetricsPage = Callable[[bool], Awaitable[bytes]]
# A server keeps the views of this many principals, and makes those of others again.
_MOST_VIEWS = 4096


@dataclass
class Readiness:
    """Whether a server admits requests. Its views share it."""

    ready: bool = False


@dataclass
class Server:
    """A running server, or a tenant's view of it.

    A view differs in `foundations`, `registry`, `publisher`, `deletions`, `pins`, `router` and `adapter_folder`:
    they know the tenant's adapters, and those that others share. `every_tenant` is the registry with the adapters
    of all. `approval` decides who makes a version live. `tracing` is None if no spans are exported.
    `all_metrics` makes the page of all processes, and is None if there is one. `texts` limits the texts that are
    tokenised for clients at once, so that long ones leave threads for the rest.
    """

    foundations: Foundations
    registry: Registry
    every_tenant: SqlRegistry
    publisher: Publisher
    deletions: Deletions
    pins: Pins | TenantPins
    metrics: Metrics
    bundle_limits: Limits
    adapter_folder: AdapterFolder
    max_body_bytes: int
    remote_files: RemoteFiles
    access: Access
    quotas: Quotas
    sources: RemoteSources
    rollout: RolloutWatcher
    router: Router = field(default_factory=Router)
    approval: Approval = field(default_factory=Approval)
    tracing: Tracing | None = None
    all_metrics: MetricsPage | None = None
    texts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    readiness: Readiness = field(default_factory=Readiness)
    _views: dict[tuple[str, str], Server] = field(default_factory=dict, init=False, repr=False)

    @property
    def ready(self) -> bool:
        """Tell whether the server admits requests; it turns false when the server drains."""
        return self.readiness.ready

    @ready.setter
    def ready(self, ready: bool) -> None:
        self.readiness.ready = ready

    async def metrics_page(self, to_operator: bool) -> bytes:
        """Return the metrics of the server, of all its processes if there are several."""
        return await (self.own_metrics if self.all_metrics is None else self.all_metrics)(to_operator)

    async def own_metrics(self, to_operator: bool) -> bytes:
        """Return the metrics of this process."""
        self.metrics.ready.set(self.ready and self.foundations.alive)
        self.metrics.rank()
        return await asyncio.to_thread(self.metrics.render, to_operator)

    def seen_by(self, principal: Principal) -> Server:
        """Return the server as a principal's tenant sees it. Its changes are recorded under the principal."""
        key = principal.tenant, principal.key
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            view = self._views[key] = self._view(principal)
        return view

    def _view(self, principal: Principal) -> Server:
        tenant = principal.tenant
        registry = TenantRegistry(self.every_tenant, tenant, principal.who)
        return replace(
            self,
            foundations=self.foundations.seen_by(registry),
            registry=registry,
            publisher=self.publisher.seen_by(registry),
            deletions=self.deletions.seen_by(registry),
            pins=self.pins.seen_by(tenant),
            router=self.router.of_tenant(tenant),
            adapter_folder=self.adapter_folder.of_tenant(tenant),
        )


def principal_of(request: Request) -> Principal:
    """Return who a request is from, as the gate noted it."""
    principal: Principal = request.state.principal
    return principal


def is_operator(principal: Principal) -> bool:
    """Tell whether a principal administers the server, and so all tenants."""
    return principal.tenant == DEFAULT_TENANT and principal.role == "admin"


def server_of(request: Request) -> Server:
    """Return the server that handles a request, as the tenant of the request sees it."""
    server: Server = request.app.state.server
    return server.seen_by(principal_of(request))


async def check_activation(request: Request, name: str, alias: str, *versions: int) -> None:
    """Raise ApprovalNeeded if the caller may not let requests for an alias of an adapter reach these versions.

    Every route that moves, splits or copies the requests of an alias calls this first.
    """
    server = server_of(request)
    check = server.approval.check
    await asyncio.to_thread(check, principal_of(request), server.registry, name, alias, *versions)
