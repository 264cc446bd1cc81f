"""The interface of a store that keeps the bytes of bundles by digest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol


class Store(Protocol):
    """A store of bundles' bytes by digest, safe for many threads and processes.

    The digest is of the bundle's manifest, not of the stored bytes, so a reader has to check the bytes.
    """

    def put(self, digest: str, data: bytes) -> None:
        """Store `data` under `digest`, durably when the call returns; raise StoreFull if there is no room."""

    def get(self, digest: str) -> bytes:
        """Return the bytes under `digest`; raise MissingBundle if there are none that can be read."""

    def open(self, digest: str) -> BinaryIO:
        """Return the bytes under `digest` as an open file that can seek; raise MissingBundle as `get` does."""

    def delete(self, digest: str) -> None:
        """Remove the bytes under `digest`, if there are any."""

    def digests(self) -> Iterator[str]:
        """Yield every digest in the store, in order."""
