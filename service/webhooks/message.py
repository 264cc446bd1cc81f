"""The message that tells a receiver of an event."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rootstock.adapters.registry.webhook_port import FeedEvent


@dataclass(frozen=True)
class WebhookMessage:
    """A message in JSON. Its id is the same each time that it is sent, so that a receiver can drop the second."""

    id: str
    body: bytes

    @classmethod
    def of(cls, fed: FeedEvent) -> WebhookMessage:
        """Return the message of an event."""
        event = fed.event
        data: dict[str, Any] = {
            "tenant": fed.tenant,
            "id": event.id,
            "name": event.name,
            "version": event.version,
            "alias": event.alias,
            "detail": event.detail,
            "who": event.who,
        }
        document = {"type": f"adapter.{event.what}", "timestamp": _iso(event.at), "data": data}
        body = json.dumps(document, separators=(",", ":")).encode()
        # Two registries may send to one receiver, and both count their events from 1.
        return cls(f"evt_{fed.position}_{hashlib.sha256(body).hexdigest()[:16]}", body)


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
