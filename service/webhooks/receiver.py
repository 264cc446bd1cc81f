"""An address that receives events."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import urlsplit

_MAX_URL = 2048


@dataclass(frozen=True)
class WebhookReceiver:
    """An address that receives events. The path, the query and a password in its URL may be secrets."""

    url: str

    @classmethod
    def parse(cls, url: str) -> WebhookReceiver:
        """Return the receiver at a URL; raise ValueError, which does not repeat it, if it cannot be called."""
        whole = url.isascii() and url.isprintable() and " " not in url and len(url) <= _MAX_URL
        if not whole or not _can_be_called(url):
            raise ValueError(
                f"this is not the URL of a webhook; give https://host/path of at most {_MAX_URL} characters"
            )
        return cls(url)

    @property
    def host(self) -> str:
        """Return the host's name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def plain(self) -> bool:
        """Tell whether events go over HTTP without TLS."""
        return urlsplit(self.url).scheme == "http"

    @property
    def address(self) -> str:
        """Return the SHA-256 of the URL, under which the registry keeps the place of the receiver."""
        return hashlib.sha256(self.url.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Return the name for logs and metrics: the host, and digits that tell two receivers of a host apart."""
        return f"{self.host}#{self.address[:8]}"


def _can_be_called(url: str) -> bool:
    # Settings are read where nothing is sent, so the library that sends is imported for a URL alone.
    import httpx

    try:
        parts = urlsplit(url)
        host = httpx.URL(url).host
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0 and not parts.fragment
    except (ValueError, httpx.InvalidURL):
        return False
