"""Opens the delivery of events to the webhooks in the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from rootstock.adapters.registry.webhook_port import EventFeed
    from rootstock.service.telemetry.metrics import Metrics


@asynccontextmanager
async def deliver_events(settings: Settings, feed: EventFeed, metrics: Metrics) -> AsyncIterator[None]:
    """Deliver events until the end of the block; do nothing without webhooks in the settings."""
    if not settings.receivers:
        yield
        return
    from rootstock.service.webhooks.dispatch import WebhookDispatch
    from rootstock.service.webhooks.series import WebhookMetrics

    # Receivers are the operator's business, as the names of adapters are.
    series = WebhookMetrics(metrics.of_operator)
    dispatch = WebhookDispatch(feed, settings.receivers, settings.webhook_secrets, series)
    await asyncio.to_thread(dispatch.start)
    try:
        yield
    finally:
        await asyncio.to_thread(dispatch.close)
