"""The delivery of events to one receiver: in order, at least once, by one server at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from rootstock.adapters.errors import AdapterError
from rootstock.adapters.registry.webhook_port import EventFeed, FeedEvent
from rootstock.service.webhooks.message import WebhookMessage
from rootstock.service.webhooks.receiver import WebhookReceiver
from rootstock.service.webhooks.sender import WebhookSender
from rootstock.service.webhooks.series import ReceiverSeries

_PAGE = 100
Result = TypeVar("Result")


@dataclass(frozen=True)
class DeliveryTimes:
    """The times of a delivery, in seconds.

    The server looks for new events each `look`. An attempt may take `attempt`. The pause after a failure is
    `first_pause`, and doubles with each further one up to `longest_pause`. A server that has died keeps its
    receiver from the others for `hold`, which is at least three times `attempt`.
    """

    look: float = 0.5
    attempt: float = 10.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    hold: float = 30.0


class WebhookDelivery:
    """The delivery to one receiver, for one server, which calls itself `holder`.

    An event that the receiver does not take is sent again until it does, and no later event before it. A message
    comes twice if the server ends, or loses the database, between its delivery and the record of it.
    """

    def __init__(
        self,
        feed: EventFeed,
        receiver: WebhookReceiver,
        holder: str,
        series: ReceiverSeries,
        times: DeliveryTimes,
    ) -> None:
        self._feed = feed
        self._address = receiver.address
        self._receiver = receiver
        self._holder = holder
        self._series = series
        self._times = times
        self._held_until = 0.0
        self._log = structlog.get_logger().bind(receiver=receiver.name)

    async def run(self, sender: WebhookSender) -> None:
        """Deliver events until the task is cancelled."""
        while True:
            try:
                await self._catch_up(sender)
            except AdapterError:
                pass  # The registry is away, and /readyz says so.
            except Exception:
                # Whatever it is: a delivery that ended would lose its receiver every later event.
                self._log.exception("the delivery of events failed; it goes on")
            await asyncio.sleep(self._times.look)

    async def _catch_up(self, sender: WebhookSender) -> None:
        """Deliver what is there, unless another server does."""
        self._series.behind_since = await asyncio.to_thread(self._feed.oldest_ahead, self._address)
        if self._series.behind_since is None:
            return
        try:
            position = await self._take()
            if position is None:
                return
            while page := await asyncio.to_thread(self._feed.following, position, _PAGE):
                for event in page:
                    self._series.behind_since = event.event.at
                    if not await self._deliver(event, sender):
                        return
                    position = event.position
            self._series.behind_since = None
        finally:
            with suppress(AdapterError):  # Then the hold ends by itself.
                await _to_its_end(self._feed.release, self._address, self._holder)

    async def _deliver(self, event: FeedEvent, sender: WebhookSender) -> bool:
        """Send an event until the receiver takes it. Return False if another server holds the receiver now."""
        message = WebhookMessage.of(event)
        pause, attempts = self._times.first_pause, 0
        while await self._holds():
            failure = await sender.send(message)
            attempts += 1
            if failure is None:
                self._series.delivered.inc()
                if attempts > 1:
                    self._log.warning("a webhook takes events again", message=message.id, attempts=attempts)
                return await self._advance(event.position)
            self._series.failed.inc()
            wait = min(max(pause, failure.retry_after), self._times.longest_pause)
            self._log.warning(
                "a webhook has not taken an event",
                message=message.id,
                reason=failure.reason,
                attempts=attempts,
                retry_in=wait,
            )
            if not await self._wait(wait):
                return False
            pause = min(2 * pause, self._times.longest_pause)
        return False

    async def _wait(self, seconds: float) -> bool:
        """Wait, and go on holding the receiver. Return False if another server holds it now."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            await asyncio.sleep(min(left, self._times.hold / 4))
            if not await self._holds():
                return False
        return True

    async def _holds(self) -> bool:
        """Return whether the receiver is held for an attempt and more, after holding it anew if need be."""
        if self._held_until - time.monotonic() > 1.5 * self._times.attempt:
            return True
        return await self._take() is not None

    async def _take(self) -> int | None:
        asked = time.monotonic()
        position = await _to_its_end(self._feed.take, self._address, self._holder, self._times.hold)
        self._held_until = asked + self._times.hold
        return position

    async def _advance(self, position: int) -> bool:
        asked = time.monotonic()
        hold = self._times.hold
        moved = await asyncio.to_thread(self._feed.advance, self._address, self._holder, position, hold)
        self._held_until = asked + hold
        return moved


async def _to_its_end(call: Callable[..., Result], *arguments: Any) -> Result:
    """Call in a thread, and wait for its end also if the task is cancelled.

    A cancelled call may go on or never begin. A hold that is taken after its release, or never released, would
    keep the other servers away.
    """
    calling = asyncio.create_task(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        await asyncio.wait([calling])
        raise
