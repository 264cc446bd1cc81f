"""The thread in which events are delivered, apart from the requests."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress

import httpx

from rootstock.adapters.registry.webhook_port import EventFeed
from rootstock.service.webhooks.delivery import DeliveryTimes, WebhookDelivery
from rootstock.service.webhooks.receiver import WebhookReceiver
from rootstock.service.webhooks.secret import WebhookSecret
from rootstock.service.webhooks.sender import WebhookSender
from rootstock.service.webhooks.series import ReceiverSeries, WebhookMetrics

# Seconds that a stop waits for the thread. A database that hangs must not hold it up.
_PATIENCE = 5.0


class WebhookDispatch:
    """The delivery of all events to all receivers, in one thread. No receiver waits for another one."""

    def __init__(
        self,
        feed: EventFeed,
        receivers: Sequence[WebhookReceiver],
        secrets: Sequence[WebhookSecret],
        metrics: WebhookMetrics,
        times: DeliveryTimes | None = None,
    ) -> None:
        self._feed = feed
        self._receivers = receivers
        self._secrets = secrets
        self._times = DeliveryTimes() if times is None else times
        self._series = [ReceiverSeries(metrics, one.name) for one in receivers]
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Let new receivers begin at the newest event, and start to deliver. Raise RegistryUnavailable."""
        for receiver in self._receivers:
            self._feed.begin(receiver.address)
        loop = self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, args=(loop,), name="webhooks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop to deliver. An attempt that is under way is made again after the next start."""
        if self._loop is None or self._thread is None:
            return
        with suppress(RuntimeError):  # The thread has ended.
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._deliver())

    async def _deliver(self) -> None:
        holder = str(uuid.uuid4())
        async with AsyncExitStack() as stack:
            tasks = []
            for receiver, series in zip(self._receivers, self._series, strict=True):
                delivery = WebhookDelivery(self._feed, receiver, holder, series, self._times)
                # Each has its own connections, so that none waits for those of another.
                client = await stack.enter_async_context(httpx.AsyncClient(timeout=self._times.attempt))
                sender = WebhookSender(client, receiver, self._secrets, self._times.attempt)
                tasks.append(asyncio.create_task(delivery.run(sender)))
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
