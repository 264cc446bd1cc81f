"""The secrets that sign messages to webhooks, as the Standard Webhooks specification defines them."""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field

_PREFIX = "whsec_"
# Bytes, by the specification.
_SHORTEST, _LONGEST = 24, 64


@dataclass(frozen=True)
class WebhookSecret:
    """The key of a signature by HMAC with SHA-256."""

    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> WebhookSecret:
        """Return the secret in the form `whsec_` and base64; raise ValueError, which does not repeat it."""
        try:
            if not text.startswith(_PREFIX):
                raise ValueError
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
            if not _SHORTEST <= len(key) <= _LONGEST:
                raise ValueError
        except (ValueError, binascii.Error):
            raise ValueError(
                f"a secret is {_PREFIX} and the base64 of {_SHORTEST} to {_LONGEST} bytes; make one: "
                f'echo "{_PREFIX}$(openssl rand -base64 32)"'
            ) from None
        return cls(key)

    def sign(self, id: str, timestamp: int, body: bytes) -> str:
        """Return the signature of a message that is sent at `timestamp`, in seconds since 1970."""
        signed = f"{id}.{timestamp}.".encode() + body
        return "v1," + base64.b64encode(hmac.digest(self.key, signed, "sha256")).decode()
