"""A cache of resolved references in memory."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from rootstock.adapters.reference import split_stored
from rootstock.adapters.registry.records import Resolution


class Resolutions:
    """A cache of at most `size` resolved references of one revision; it drops the least recently used first.

    A key states the reference and the tenant that uses it.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._revision = -1
        self._kept: OrderedDict[Hashable, Resolution] = OrderedDict()
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

    def get(self, key: Hashable) -> Resolution | None:
        """Return the resolution under `key`; None if it is not in the cache."""
        with self._lock:
            resolution = self._kept.get(key)
            if resolution is not None:
                self._kept.move_to_end(key)
            return resolution

    def keep(self, key: Hashable, resolved: Resolution, revision: int) -> None:
        """Add a resolution that was read at `revision`, unless the cache knows a newer revision."""
        with self._lock:
            self._renew(revision)
            if revision == self._revision:
                self._kept[key] = resolved
                self._kept.move_to_end(key)
                if len(self._kept) > self._size:
                    self._kept.popitem(last=False)

    def renew(self, revision: int, changed: str | None = None) -> None:
        """Drop the resolutions from before `revision`: all, or one adapter's if the write `changed` only that.

        Another tenant's adapter of the same name goes too: a tenant without that name may have used it.
        """
        with self._lock:
            if changed is None or revision != self._revision + 1:
                self._renew(revision)
                return
            name = split_stored(changed)[1]
            for key in [key for key, one in self._kept.items() if split_stored(one.name)[1] == name]:
                del self._kept[key]
            self._revision = revision

    def clear(self) -> None:
        """Drop all resolutions."""
        with self._lock:
            self._kept.clear()

    def _renew(self, revision: int) -> None:
        if revision > self._revision:
            self._kept.clear()
            self._revision = revision
