"""One attempt to send a message to a receiver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import httpx

from rootstock.service.webhooks.message import WebhookMessage
from rootstock.service.webhooks.receiver import WebhookReceiver
from rootstock.service.webhooks.secret import WebhookSecret

# Of an answer as many bytes are read, so that its connection can carry the next message.
_MAX_ANSWER = 2**16


@dataclass(frozen=True)
class DeliveryFailure:
    """The reason why a message was not taken, and the seconds after which the receiver asks for it again."""

    reason: str
    retry_after: float = 0.0


class WebhookSender:
    """Sends messages to one receiver, each signed with every secret. An attempt ends after `seconds`.

    No redirect is followed, because the operator has allowed this address alone. The content of an answer is
    neither kept nor logged.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        receiver: WebhookReceiver,
        secrets: Sequence[WebhookSecret],
        seconds: float,
    ) -> None:
        self._client = client
        self._url = receiver.url
        self._secrets = secrets
        self._seconds = seconds

    async def send(self, message: WebhookMessage) -> DeliveryFailure | None:
        """Send a message; return None if the receiver has taken it, that is, if its status is 2xx."""
        status: int | None = None
        retry_after = 0.0
        reason = ""
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._client.stream(
                    "POST",
                    self._url,
                    content=message.body,
                    headers=self._headers(message),
                    follow_redirects=False,
                ) as response,
            ):
                status, retry_after = response.status_code, _seconds(response.headers.get("retry-after"))
                await _skip(response)
        except TimeoutError:
            reason = f"no answer within {self._seconds:g} s"
        except (httpx.HTTPError, OSError) as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
        if status is None:
            return DeliveryFailure(reason)
        # The receiver has taken it, also if the rest of its answer never came.
        return None if 200 <= status < 300 else DeliveryFailure(f"status {status}", retry_after)

    def _headers(self, message: WebhookMessage) -> dict[str, str]:
        sent = int(time.time())
        return {
            "Content-Type": "application/json",
            "User-Agent": "rootstock",
            "webhook-id": message.id,
            "webhook-timestamp": str(sent),
            "webhook-signature": " ".join(one.sign(message.id, sent, message.body) for one in self._secrets),
        }


async def _skip(response: httpx.Response) -> None:
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > _MAX_ANSWER:
            return


def _seconds(header: str | None) -> float:
    """Return the seconds that the header Retry-After states; a date in it counts as none."""
    # A number with hundreds of digits fits in no float.
    with suppress(ValueError, OverflowError):
        return max(0.0, float(int(header or "")))
    return 0.0
