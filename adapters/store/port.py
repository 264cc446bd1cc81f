"""The interface of a store that keeps the bytes of bundles by digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """The number of bytes that a store has under a digest, and when it wrote them (UTC)."""

    digest: str
    size: int
    written_at: datetime


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

    def entries(self) -> Iterator[StoredBytes]:
        """Yield every digest in the store, in order, with the size and the time of its bytes."""

    def leftovers(self, *, remove: bool) -> list[str]:
        """Return the names of the files that interrupted writes left, and remove these files if `remove`.

        A write in progress is none of them.
        """
