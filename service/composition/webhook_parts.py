"""Starts the delivery of events to the webhooks in the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rootstock.service.settings import Settings

if TYPE_CHECKING:
    from rootstock.adapters.registry.webhook_port import EventFeed
    from rootstock.service.telemetry.metrics import Metrics
    from rootstock.service.webhooks.dispatch import WebhookDispatch


def start_webhooks(settings: Settings, feed: EventFeed, metrics: Metrics) -> WebhookDispatch | None:
    """Start to deliver events; return None, and start nothing, without webhooks in the settings."""
    if not settings.receivers:
        return None
    from rootstock.service.webhooks.dispatch import WebhookDispatch
    from rootstock.service.webhooks.series import WebhookMetrics

    # Receivers are the operator's business, as the names of adapters are.
    series = WebhookMetrics(metrics.of_operator)
    dispatch = WebhookDispatch(feed, settings.receivers, settings.webhook_secrets, series)
    dispatch.start()
    return dispatch
