"""A home's journal of bundles that a program stores or deletes, so that the next start can finish its work."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rootstock.adapters.errors import InvalidDigest, MissingBundle
from rootstock.adapters.reference import check_digest
from rootstock.adapters.registry.port import Registry
from rootstock.adapters.store.port import Store

_Result = TypeVar("_Result")


class BundleJournal:
    """The changes to a store that belong to changes of a registry: each is complete, or the next start ends it.

    A mark is an empty file with a digest's digits for its name. A program makes it before the bytes and removes
    it after the row. The mark alone decides nothing: bytes that no version uses are removed, and others stay.

    Several programs may share the registry and the store, each with its own journal. The registry's guard keeps
    them from each other's bytes.
    """

    def __init__(self, folder: Path, registry: Registry, store: Store) -> None:
        """Use the folder of the marks, and create it with the first mark."""
        self._folder = folder
        self._registry = registry
        self._store = store
        # Several threads may be at the same digest. The last one removes the mark.
        self._marks: Counter[str] = Counter()
        self._marking = threading.Lock()

    def publish(self, digest: str, data: bytes, record: Callable[[], _Result]) -> _Result:
        """Store the bytes durably, then call `record`, which publishes a version of them; return its result.

        Nobody removes the bytes meanwhile. If `record` fails, remove them unless another version uses them.
        """
        self.mark(digest)
        try:
            with self._registry.guarding() as guard:
                guard(digest)
                self._store.put(digest, data)
                done = record()
        except BaseException:
            # While the registry is away, nobody can tell. Then the mark stays for the next start.
            with suppress(Exception):
                self.discard(digest)
                self.unmark(digest)
            raise
        self.unmark(digest)
        return done

    def discard(self, digest: str) -> bool:
        """Remove the bytes of a digest unless a version uses them or is about to; return whether none does."""
        return self._registry.remove_unused(digest, self._store.delete)

    def mark(self, digest: str) -> None:
        """Note that this program changes the bytes of a digest."""
        # A disk without room for a mark has none for the bytes either, and the store says so in its own words.
        with self._marking, suppress(OSError):
            self._marks[digest] += 1
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            self._mark_of(digest).touch(0o600)

    def unmark(self, digest: str) -> None:
        """Note that the change to the bytes of a digest is complete."""
        # A mark that stays makes the next start look once more, and it must not fail a change that is complete.
        with self._marking, suppress(OSError):
            self._marks[digest] -= 1
            if self._marks[digest] <= 0:
                del self._marks[digest]
                self._mark_of(digest).unlink(missing_ok=True)

    def take_over(self, folder: Path) -> None:
        """Take the marks in the folder of another journal, which no program uses now."""
        for digest in marks_in(folder):
            with suppress(OSError):
                self._folder.mkdir(0o700, parents=True, exist_ok=True)
                (folder / self._mark_of(digest).name).replace(self._mark_of(digest))

    def left(self) -> list[str]:
        """Return the digests of the changes that killed programs began, before this one begins any."""
        return marks_in(self._folder)

    def settle(self) -> int:
        """End the changes that killed programs began, and return how many bundles were removed."""
        removed = 0
        for digest in self.left():
            stored = self._is_stored(digest)
            removed += self.discard(digest) and stored
            self.unmark(digest)
        return removed

    def _is_stored(self, digest: str) -> bool:
        try:
            self._store.open(digest).close()
        except MissingBundle:
            return False
        return True

    def _mark_of(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")


def marks_in(folder: Path) -> list[str]:
    """Return the digests that have a mark in the folder of a journal."""
    digests = []
    for path in sorted(folder.glob("*")):
        with suppress(InvalidDigest):
            digests.append(check_digest(f"sha256:{path.name}"))
    return digests
