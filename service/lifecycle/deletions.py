"""The deletions of a server: versions leave their names at once, and the store once nobody can want them back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from rootstock.adapters.errors import AdapterError, NotOwner, UnknownAdapter, UnknownVersion, VersionInUse
from rootstock.adapters.home.journal import BundleJournal
from rootstock.adapters.reference import DEFAULT_TENANT, split_path, split_stored, stored_name
from rootstock.adapters.registry import DeletedVersion, SqlRegistry, TenantRegistry, Undeleted, Viewer
from rootstock.adapters.registry.port import Registry
from rootstock.service.foundations import Foundations
from rootstock.service.telemetry.metrics import Metrics

# The principal of deletions that no request asks for.
RETENTION = "retention"
# The seconds between two looks for deleted versions whose time is over, at least and at most.
_LOOKS = 1.0, 3600.0


class Deletions:
    """The deletions of a server.

    A deleted version can come back for `undelete_days`. Its bytes stay as long. After a publication, versions but
    the newest `keep_versions` and those in use are deleted likewise; 0 keeps all.
    """

    def __init__(
        self,
        foundations: Foundations,
        registry: Registry,
        every_tenant: SqlRegistry,
        journal: BundleJournal,
        metrics: Metrics,
        *,
        undelete_days: float = 0.0,
        keep_versions: int = 0,
        removal_delay: float = 0.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Take the parts. `removal_delay` is in seconds from a deletion for good to the removal of the bytes.

        With several servers on one registry, another one may still load a version for a request that it admitted.
        """
        self._foundations = foundations
        self._registry = registry
        self._every_tenant = every_tenant
        self._journal = journal
        self._metrics = metrics
        self._tenant = DEFAULT_TENANT
        self._grace = timedelta(days=undelete_days)
        self._keep_versions = keep_versions
        self._removal_delay = removal_delay
        self._clock = clock
        # All views share these.
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def grace(self) -> timedelta:
        """Return the time in which a deleted version can come back."""
        return self._grace

    def seen_by(self, registry: TenantRegistry) -> Deletions:
        """Return the deletions of one tenant's adapters."""
        deletions = copy(self)
        deletions._registry = registry
        deletions._tenant = registry.tenant
        return deletions

    def start(self, left: Sequence[str] = ()) -> None:
        """Begin to purge deleted versions whose time is over, now and from time to time.

        `left` are digests that a killed server has marked. Begin to end what it was about to do with them.
        """
        self._begin(self._purge_in_time())
        for digest in left:
            self._journal.mark(digest)
        if left:
            self._begin(self._end(left))

    async def close(self) -> None:
        """Give up what is not done yet. Marks of bytes that are to go stay, so the next start removes these."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def delete(self, name: str, version: int | None, force: bool, purge: bool = False) -> None:
        """Delete a version, or a whole adapter if `version` is None; return once no request uses it.

        No new request can resolve it. With `purge`, or without a grace time, it cannot come back, and its bundle
        is removed. `purge` also ends the grace time of what is deleted already.
        """
        restorable = bool(self._grace) and not purge
        await self._leave(await asyncio.to_thread(self._delete, name, version, force, restorable))
        if version is None:
            owner, bare = split_path(name) or (None, name)
            self._metrics.forget(stored_name(owner or self._tenant, bare))

    def deleted(self, name: str) -> list[DeletedVersion]:
        """Return the versions of an adapter that can come back. This reads the registry: call it in a thread."""
        return self._registry.deleted(name)

    async def undelete(self, name: str, version: int | None) -> Undeleted:
        """Bring back a deleted version, or all versions that were deleted with their adapter."""
        return await asyncio.to_thread(self._registry.undelete, name, version)

    def published(self, name: str) -> None:
        """Begin to delete the versions that a publication under this name makes surplus. Do not wait."""
        if self._keep_versions:
            self._begin(self._retire(name))

    async def purge_expired(self) -> int:
        """Purge all versions whose grace time is over, of any tenant, and return how many there were."""
        before, done = self._clock() - self._grace, 0
        while expired := await asyncio.to_thread(self._every_tenant.expired, before):
            for one in expired:
                viewer = Viewer(split_stored(one.name)[0], RETENTION)
                self._journal.mark(one.digest)
                purge = self._every_tenant.purge
                # Another server may have been faster.
                done += await asyncio.to_thread(purge, one.name, one.version, before, viewer) is not None
                await self._leave([one.digest])
        return done

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _purge_in_time(self) -> None:
        least, most = _LOOKS
        while True:
            try:
                if done := await self.purge_expired():
                    structlog.get_logger().info("deleted versions purged", count=done)
            except Exception as error:  # Whatever the fault of a registry or store: the next look may succeed.
                structlog.get_logger().warning("deleted versions not purged", reason=str(error))
            await asyncio.sleep(min(most, max(least, self._grace.total_seconds() / 24)))

    async def _end(self, left: Sequence[str]) -> None:
        try:
            await self._leave(left)
        except AdapterError as error:
            # The marks stay for the next start.
            structlog.get_logger().warning("interrupted changes not ended", reason=str(error))

    async def _retire(self, name: str) -> None:
        registry = TenantRegistry(self._every_tenant, self._tenant, RETENTION)
        restorable = bool(self._grace)

        def retire() -> list[str]:
            known = list(dict.fromkeys(registry.surplus(name, self._keep_versions)))
            if not known:
                return []
            for digest in known:
                self._journal.mark(digest)
            return self._marked(known, registry.retire(name, self._keep_versions, restorable=restorable))

        try:
            await self._leave(await asyncio.to_thread(retire))
        except AdapterError as error:
            structlog.get_logger().warning("surplus versions not deleted", name=name, reason=str(error))

    def _delete(self, name: str, version: int | None, force: bool, restorable: bool) -> list[str]:
        """Delete versions, and return the digests of their bundles, which stay until no request uses them.

        The bundles are marked first, so that the next start removes them if the server is killed.
        """
        known = self._digests(name, version, restorable)
        for digest in known:
            self._journal.mark(digest)
        try:
            if version is None:
                # A version may have been published since the marks were made.
                return self._marked(known, self._registry.delete_adapter(name, restorable=restorable))
            self._registry.delete_version(name, version, force=force, restorable=restorable)
            return known
        except (NotOwner, VersionInUse, UnknownAdapter, UnknownVersion):
            for digest in known:
                self._journal.unmark(digest)
            raise

    def _digests(self, name: str, version: int | None, restorable: bool) -> list[str]:
        """Return the digests that a deletion concerns, each once. Raise as the registry does without any."""
        gone: dict[int, str] = {}
        if not restorable:
            with suppress(UnknownAdapter, NotOwner):
                gone = {one.version: one.digest for one in self._registry.deleted(name)}
        if version is not None:
            return [gone[version] if version in gone else self._registry.version(name, version).digest]
        try:
            published = [one.digest for one in self._registry.show(name).versions]
        except UnknownAdapter:
            if not gone:
                raise
            published = []
        return list(dict.fromkeys([*gone.values(), *published]))

    def _marked(self, known: Sequence[str], deleted: Sequence[str]) -> list[str]:
        """Return all digests, each once, after marks for those of `deleted` that were not known before."""
        late = set(deleted) - set(known)
        for digest in late:
            self._journal.mark(digest)
        return [*known, *late]

    async def _leave(self, digests: Sequence[str]) -> None:
        """Wait until no request uses these marked bundles; remove those that no version needs, now or later."""
        for digest in digests:
            if not await asyncio.to_thread(self._registry.is_published, digest):
                await self._foundations.forget(digest)
            if await asyncio.to_thread(self._registry.digest_in_use, digest):
                self._journal.unmark(digest)
            elif self._removal_delay:
                self._begin(self._remove_later(digest))
            else:
                await self._remove(digest)

    async def _remove(self, digest: str) -> None:
        """Remove the bytes of a digest from the store unless a version uses them or is about to."""
        await asyncio.to_thread(self._journal.discard, digest)
        self._journal.unmark(digest)

    async def _remove_later(self, digest: str) -> None:
        await asyncio.sleep(self._removal_delay)
        try:
            await self._remove(digest)
        except AdapterError as error:
            structlog.get_logger().warning("bytes not removed", digest=digest, reason=str(error))
