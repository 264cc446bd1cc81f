"""The registry of adapters in a SQL database."""

import builtins
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from functools import partial

from sqlalchemy import select, update

from rootstock.adapters.errors import InvalidName, RegistryUnavailable, StoreFull
from rootstock.adapters.reference import (
    Reference,
    is_part_of_name,
    shown,
    split_path,
)
from rootstock.adapters.registry.records import (
    AdapterDetail,
    Event,
    IndexedVersion,
    Page,
    Resolution,
    VersionDetail,
    Viewer,
)
from rootstock.adapters.registry.sql.database import Database, revision
from rootstock.adapters.registry.sql.keys import SqlKeyRegistry
from rootstock.adapters.registry.sql.lifecycle.deletion import (
    is_in_use,
    is_published,
)
from rootstock.adapters.registry.sql.lifecycle.deletion_changes import DeletionChanges
from rootstock.adapters.registry.sql.lifecycle.publication_changes import PublicationChanges
from rootstock.adapters.registry.sql.listing import (
    adapter_detail,
    count,
    indexed_versions,
    newest_events,
    page,
    version_detail,
)
from rootstock.adapters.registry.sql.lookup import find_target, find_version
from rootstock.adapters.registry.sql.quota_uses import SqlQuotaUses
from rootstock.adapters.registry.sql.references import references_of
from rootstock.adapters.registry.sql.resolutions import Resolutions
from rootstock.adapters.registry.sql.rollout.rollout_changes import RolloutChanges
from rootstock.adapters.registry.sql.tables import DeletedVersionRow, VersionRow
from rootstock.adapters.registry.sql.visibility import find_adapter, named
from rootstock.adapters.registry.sql.webhooks.event_cursors import EventCursors

STALE_AFTER = 1.0


class SqlRegistry(PublicationChanges, RolloutChanges, DeletionChanges):
    """A registry of names, versions, aliases and events in one database, for many threads and processes.

    Every look-up that starts after a change through this SqlRegistry has returned sees that change. A change by
    another process reaches look-ups of references in this one's memory at most STALE_AFTER seconds plus one
    query later, and all other look-ups at once; on PostgreSQL it reaches both at once. While the database cannot
    be read, references in memory still resolve; `ping` then raises RegistryUnavailable.

    Each method takes the viewer for whom it reads or writes (`TenantRegistry` gives it). Without one, a program
    that holds the home uses the adapters of all tenants by their stored names.
    """

    def __init__(
        self,
        url: str,
        *,
        cache_size: int = 16_384,
        busy_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        upgrade: bool = True,
    ) -> None:
        """Open the database at `url`, of SQLite or PostgreSQL, creating or upgrading it as needed.

        Without `upgrade`, raise RegistryUnavailable if there is none, and refuse to change one of an older
        program. Raise UnsafeRegistry if a newer program changed it so that this one cannot use it, and
        RegistryUnavailable if it cannot be reached or is of another kind.
        """
        super().__init__(Database(url, busy_timeout, upgrade), Resolutions(cache_size))
        self._clock = clock
        self._looked = clock()
        self._looking = threading.Lock()
        # A change of keys changes no resolution, so it drops none: no adapter has this name.
        self.keys = SqlKeyRegistry(self._database, lambda number: self._resolutions.renew(number, ""))
        self.webhooks = EventCursors(self._database)
        self.quota_uses = SqlQuotaUses(self._database)
        self._subscribers: builtins.list[Callable[[], None]] = []
        self._followed = self._database.follow(self._resolutions, self._tell)

    def resolve(self, reference: str | Reference, viewer: Viewer | None = None) -> Resolution:
        """Return the one version that `reference` means now; a name alone means its alias `live`."""
        text = str(reference) if isinstance(reference, Reference) else reference
        self._look_for_changes()
        key = None if viewer is None else viewer.tenant, text
        resolution = self._resolutions.get(key) if isinstance(text, str) else None
        if resolution is not None:
            return resolution
        parsed = reference if isinstance(reference, Reference) else Reference.parse(reference)
        resolved, read_at = self._database.in_time(partial(self._find, parsed, viewer))
        self._resolutions.keep(key, resolved, read_at)
        return resolved

    def list(
        self, limit: int = 100, after: str | None = None, search: str = "", viewer: Viewer | None = None
    ) -> Page:
        """Return at most `limit` adapters in order of name: names after `after` that contain `search`."""
        if limit < 1:
            raise ValueError(f"limit is {limit}; give at least 1")
        if after is not None and split_path(after) is None:
            raise InvalidName(
                f"{shown(after)} is not a name that a page can begin after; give the `next` of the last page",
                param="after",
            )
        search = search.lower()
        if not is_part_of_name(search):
            return Page([], None)
        with self._database.reading() as session:
            return page(session, limit, after, search, viewer)

    def show(self, name: str, viewer: Viewer | None = None) -> AdapterDetail:
        """Return everything about one adapter; raise UnknownAdapter if there is none."""
        with self._database.reading() as session:
            return adapter_detail(session, name, viewer)

    def version(self, name: str, number: int, viewer: Viewer | None = None) -> VersionDetail:
        """Return everything about one version; raise UnknownAdapter or UnknownVersion if there is none."""
        with self._database.reading() as session:
            adapter = find_adapter(session, name, viewer)
            row = find_version(session, adapter, number, viewer)
            return version_detail(row, named(adapter.name, viewer), viewer)

    def events(
        self,
        name: str | None = None,
        limit: int = 100,
        before: int | None = None,
        viewer: Viewer | None = None,
    ) -> builtins.list[Event]:
        """Return at most `limit` events, newest first, of all adapters or of one, which may be deleted.

        With `before`, return only events older than the one with that id. A viewer gets the events of its tenant,
        and their ids count these alone.
        """
        with self._database.reading() as session:
            return newest_events(session, name, limit, before, viewer)

    def count(self, viewer: Viewer | None = None) -> int:
        """Return the number of adapters."""
        with self._database.reading() as session:
            return count(session, viewer)

    def is_empty(self) -> bool:
        """Return whether there are no adapters now, even if there were some earlier."""
        return self.count() == 0

    def digest_in_use(self, digest: str) -> bool:
        """Return whether any version of any tenant's adapter has this digest, deleted ones included."""
        with self._database.reading() as session:
            return is_in_use(session, digest)

    def is_published(self, digest: str) -> bool:
        """Return whether requests can mean a version with this digest."""
        with self._database.reading() as session:
            return is_published(session, digest)

    @property
    def revision(self) -> int:
        """Return the newest revision that this registry knows, as up to date as the references in memory."""
        self._look_for_changes()
        return self._resolutions.revision

    def references_of(
        self, digests: Collection[str], most: int, tenant: str | None = None
    ) -> builtins.list[tuple[str, str]]:
        """Return digests with references of one or all tenants that mean them, at most `most`, by stored name."""
        with self._database.reading() as session:
            return references_of(session, digests, most, tenant)

    def guarding(self) -> AbstractContextManager[Callable[[str], None]]:
        """Yield a function that guards the bytes of a digest from `remove_unused`, in any program.

        The guard ends with the block. Store bytes and publish them in one block, by one write from the thread
        that entered it. If the guard is lost meanwhile, that write raises RegistryUnavailable.
        """
        return self._database.guarding()

    def remove_unused(self, digest: str, remove: Callable[[str], object]) -> bool:
        """Call `remove` with a digest that no version has, while nobody guards it; return whether it did."""
        with self._database.removing(digest) as session:
            if is_in_use(session, digest):
                return False
            remove(digest)
            return True

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed`, in a thread of the registry, after changes by other programs; on SQLite never."""
        self._subscribers.append(changed)

    def index(self) -> Iterator[IndexedVersion]:
        """Yield every version of every tenant's adapters by stored name, in order of name and number.

        The deleted ones that can come back follow the others.
        """
        for deleted in (False, True):
            after = ("", 0)
            while True:
                with self._database.reading() as session:
                    versions = indexed_versions(session, after, deleted)
                if not versions:
                    break
                yield from versions
                after = (versions[-1].name, versions[-1].version)

    def mark(self, digest: str, status: str) -> int:
        """Set the status of all versions with this digest, and return how many had another one."""
        changed = 0
        with self._writing(None, None) as (session, history):
            for table in (VersionRow, DeletedVersionRow):
                other = (table.digest == digest, table.status != status)
                columns = select(table.adapter, table.number, table.status)
                rows = session.execute(columns.where(*other)).all()
                session.execute(update(table).where(*other).values(status=status))
                for name, number, before in rows:
                    history.note(
                        f"marked_{status}", name, version=number, digest=digest, before=before, after=status
                    )
                changed += len(rows)
        return changed

    def ping(self) -> None:
        """Return if the database answers; else raise RegistryUnavailable."""
        self._database.ping()

    def close(self) -> None:
        """Close the database; every later call raises RegistryUnavailable."""
        self._database.close()
        self._resolutions.clear()

    def _find(self, reference: Reference, viewer: Viewer | None) -> tuple[Resolution, int]:
        with self._database.reading() as session:
            return find_target(session, reference, viewer)

    def _tell(self) -> None:
        for changed in self._subscribers:
            changed()

    def _look_for_changes(self) -> None:
        if self._followed:
            return
        now = self._clock()
        if now - self._looked < STALE_AFTER or not self._looking.acquire(blocking=False):
            return
        try:
            before = self._resolutions.revision
            with self._database.reading() as session:
                self._resolutions.refresh(revision(session), before)
        except (RegistryUnavailable, StoreFull):
            # The state in memory was right when it was read. To serve it is better than to fail every request.
            pass
        finally:
            self._looked = now
            self._looking.release()
