"""Opens the quotas of a server, which the servers on one registry share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from rootstock.adapters.errors import RegistryUnavailable, StoreFull

if TYPE_CHECKING:
    from rootstock.adapters.registry.quota_port import QuotaUses
    from rootstock.service.tenancy.key_ring import KeyRing
    from rootstock.service.tenancy.quotas import Quotas
    from rootstock.service.tenancy.shared_use import SharedUse

# Seconds between two exchanges. The others know after two of them what one server lets someone spend.
_EXCHANGE_EVERY = 0.5


@asynccontextmanager
async def open_quotas(ring: KeyRing, uses: QuotaUses | None) -> AsyncIterator[Quotas]:
    """Yield the quotas. With `uses`, what other servers let someone spend counts here too."""
    from rootstock.service.tenancy.quotas import Quotas
    from rootstock.service.tenancy.shared_use import SharedUse

    if uses is None:
        yield Quotas(ring)
        return
    shared = SharedUse(uses)
    quotas = Quotas(ring, shared.note)
    exchanging = asyncio.create_task(_exchange(ring, quotas, shared))
    try:
        yield quotas
    finally:
        exchanging.cancel()
        with suppress(asyncio.CancelledError):
            await exchanging


async def _exchange(ring: KeyRing, quotas: Quotas, shared: SharedUse) -> None:
    while True:
        await asyncio.sleep(_EXCHANGE_EVERY)
        # A registry without quotas is not asked.
        if not ring.has_quotas:
            continue
        try:
            others = await asyncio.to_thread(shared.exchange)
        except (RegistryUnavailable, StoreFull):
            continue  # /readyz or the next change says so. Each server counts its own use meanwhile.
        except Exception:
            structlog.get_logger().exception("the use of quotas cannot be exchanged; it is tried again")
            continue
        for use, amount in others.items():
            quotas.hear(use, amount)
