"""The parts of a running server that the routes call; `composition` puts them together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request

from rootstock.adapters.bundle import Limits
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.sources.remote.remote_sources import RemoteSources
from rootstock.service.adapter_folder import AdapterFolder
from rootstock.service.api.media.remote_file import RemoteFiles
from rootstock.service.foundations import Foundations
from rootstock.service.pins import Pins
from rootstock.service.publishing import Publisher
from rootstock.service.telemetry.metrics import Metrics
from rootstock.service.tenancy.access import Access
from rootstock.service.tenancy.principal import Principal
from rootstock.service.tenancy.quotas import Quotas

if TYPE_CHECKING:
    from rootstock.service.telemetry.tracing import Tracing


@dataclass
class Server:
    """A running server. `ready` turns false when it drains; `tracing` is None if no spans are exported.

    `texts` limits the texts that are tokenised for clients at once, so that long ones leave threads for the rest.
    """

    foundations: Foundations
    registry: Registry
    publisher: Publisher
    pins: Pins
    metrics: Metrics
    bundle_limits: Limits
    adapter_folder: AdapterFolder
    max_body_bytes: int
    remote_files: RemoteFiles
    access: Access
    quotas: Quotas
    sources: RemoteSources
    tracing: Tracing | None = None
    ready: bool = False
    texts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))


def server_of(request: Request) -> Server:
    """Return the server that handles a request."""
    server: Server = request.app.state.server
    return server


def principal_of(request: Request) -> Principal:
    """Return who a request is from, as the gate noted it."""
    principal: Principal = request.state.principal
    return principal
