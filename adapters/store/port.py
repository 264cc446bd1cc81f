"""The contract of a store: bundles' bytes, by digest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Store(Protocol):
    """Keeps bundles' bytes by digest. Safe for many threads and processes.

    A digest is that of a bundle's manifest and not of the stored bytes, so whoever reads them checks them.
    """

    def put(self, digest: str, data: bytes) -> None:
        """Keep `data` under `digest`, durable on return; raise StoreFull where there is no room for it."""

    def get(self, digest: str) -> bytes:
        """Return the bytes kept under `digest`; else MissingBundle."""

    def delete(self, digest: str) -> None:
        """Drop the bytes kept under `digest`, if there are any."""

    def digests(self) -> Iterator[str]:
        """Give every digest that bytes are kept under, in order."""
