"""A cache of resolved references in memory."""

import threading
from collections import OrderedDict

from rootstock.adapters.registry.records import Resolution


class Resolutions:
    """A cache of at most `size` resolved references of one revision; it drops the least recently used first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._revision = -1
        self._kept: OrderedDict[str, Resolution] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def revision(self) -> int:
        """Return the newest revision that the cache knows; -1 before the first."""
        return self._revision

    def refresh(self, revision: int, before: int) -> None:
        """Take over a revision that was read after the cache knew `before`.

        A lower one means that the database was put back to an earlier state, so all resolutions are dropped.
        """
        with self._lock:
            if revision < before:
                self._kept.clear()
                self._revision = revision
            else:
                self._renew(revision)

    def get(self, reference: str) -> Resolution | None:
        """Return the resolution of `reference`; None if it is not in the cache."""
        with self._lock:
            resolution = self._kept.get(reference)
            if resolution is not None:
                self._kept.move_to_end(reference)
            return resolution

    def keep(self, reference: str, resolved: Resolution, revision: int) -> None:
        """Add a resolution that was read at `revision`, unless the cache knows a newer revision."""
        with self._lock:
            self._renew(revision)
            if revision == self._revision:
                self._kept[reference] = resolved
                self._kept.move_to_end(reference)
                if len(self._kept) > self._size:
                    self._kept.popitem(last=False)

    def renew(self, revision: int, changed: str | None = None) -> None:
        """Drop the resolutions from before `revision`: all, or one adapter's if the write `changed` only that."""
        with self._lock:
            if changed is None or revision != self._revision + 1:
                self._renew(revision)
                return
            for reference in [text for text, resolution in self._kept.items() if resolution.name == changed]:
                del self._kept[reference]
            self._revision = revision

    def clear(self) -> None:
        """Drop all resolutions."""
        with self._lock:
            self._kept.clear()

    def _renew(self, revision: int) -> None:
        if revision > self._revision:
            self._kept.clear()
            self._revision = revision
