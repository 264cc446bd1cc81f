"""A home's journal of bundles that a program stores or deletes, so that the next start can finish its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rootstock.adapters.errors import InvalidDigest, MissingBundle
from rootstock.adapters.reference import check_digest
from rootstock.adapters.registry.port import Registry, VersionIndex
from rootstock.adapters.store.port import Store

_Result = TypeVar("_Result")


class BundleJournal:
    """The changes to a store that belong to changes of a registry: each is complete, or the next start ends it.

    A mark is an empty file with a digest's digits for its name. A program makes it before the bytes and removes
    it after the row. The mark alone decides nothing: bytes that no version uses are removed, and others stay.

    Several programs may share the registry and the store, each with its own journal.
    """

    def __init__(self, folder: Path, registry: Registry, store: Store) -> None:
        """Use the folder of the marks, and create it with the first mark."""
        self._folder = folder
        self._registry = registry
        self._store = store

    def publish(self, digest: str, data: bytes, record: Callable[[], _Result]) -> _Result:
        """Store the bytes durably, then call `record`, which publishes a version of them; return its result.

        If `record` fails, remove the bytes unless another version uses them.
        """
        self.mark(digest)
        try:
            self._store.put(digest, data)
            done = record()
        except BaseException:
            # While the registry is away, nobody can tell. Then the mark stays for the next start.
            with suppress(Exception):
                self.discard(digest)
                self.unmark(digest)
            raise
        try:
            self._store.open(digest).close()
        except MissingBundle:
            # Another program removed the bytes before it could see the version.
            self._store.put(digest, data)
        self.unmark(digest)
        return done

    def is_used(self, digest: str) -> bool:
        """Return whether any version of any adapter has this digest."""
        return self._registry.digest_in_use(digest)

    def discard(self, digest: str) -> bool:
        """Remove the bytes of a digest unless a version uses them; return whether they were removed."""
        return remove_unused(self._registry, self._store, digest)

    def mark(self, digest: str) -> None:
        """Note that this program changes the bytes of a digest."""
        # A disk without room for a mark has none for the bytes either, and the store says so in its own words.
        with suppress(OSError):
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            self._mark_of(digest).touch(0o600)

    def unmark(self, digest: str) -> None:
        """Note that the change to the bytes of a digest is complete."""
        # A mark that stays makes the next start look once more, and it must not fail a change that is complete.
        with suppress(OSError):
            self._mark_of(digest).unlink(missing_ok=True)

    def settle(self) -> int:
        """End the changes that killed programs began, and return how many bundles were removed."""
        removed = 0
        for digest in list(self._marked()):
            removed += self.discard(digest)
            self.unmark(digest)
        return removed

    def _marked(self) -> Iterator[str]:
        for path in sorted(self._folder.glob("*")):
            with suppress(InvalidDigest):
                yield check_digest(f"sha256:{path.name}")

    def _mark_of(self, digest: str) -> Path:
        return self._folder / digest.removeprefix("sha256:")


def remove_unused(registry: Registry | VersionIndex, store: Store, digest: str) -> bool:
    """Remove the bytes of a digest unless a version uses them; return whether they were removed.

    Another program may publish the digest at the same moment. If its version is there after the deletion, the
    bytes are put back; if it comes later, that program finds that the bytes are gone, and stores them again.
    """
    if registry.digest_in_use(digest):
        return False
    try:
        data = store.get(digest)
    except MissingBundle:
        # There is nothing, or nothing that could be put back.
        store.delete(digest)
        return False
    store.delete(digest)
    try:
        used = registry.digest_in_use(digest)
    except BaseException:
        store.put(digest, data)
        raise
    if used:
        store.put(digest, data)
    return not used
