"""The registry of adapters in a SQL database."""

import builtins
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from rootstock.adapters.errors import InvalidName, RegistryUnavailable, StoreFull
from rootstock.adapters.reference import (
    DEFAULT_TENANT,
    LIVE,
    Reference,
    check_alias,
    check_digest,
    check_name,
    check_tenant,
    is_part_of_name,
    shown,
    split_path,
    split_stored,
    stored_name,
)
from rootstock.adapters.registry.records import (
    READY,
    AdapterDetail,
    AliasPointer,
    AliasSplit,
    DeletedVersion,
    Event,
    IndexedVersion,
    NewVersion,
    Page,
    Published,
    Resolution,
    Sharing,
    Undeleted,
    VersionDetail,
    Viewer,
)
from rootstock.adapters.registry.rollout_records import (
    RULE,
    NamedRule,
    NamedShadow,
    RollbackRule,
    Rollout,
    RuleVerdict,
)
from rootstock.adapters.registry.sql.bulk import publish_all
from rootstock.adapters.registry.sql.database import Database, revision
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.keys import SqlKeyRegistry
from rootstock.adapters.registry.sql.lifecycle.deletion import (
    delete_adapter,
    delete_version,
    deleted_version,
    expired,
    find_deleted,
    is_in_use,
    is_published,
    purge,
    undelete,
)
from rootstock.adapters.registry.sql.lifecycle.retention import retire, surplus
from rootstock.adapters.registry.sql.listing import (
    adapter_detail,
    count,
    indexed_versions,
    newest_events,
    page,
    version_detail,
)
from rootstock.adapters.registry.sql.live import live_version, move_live, point, step_back
from rootstock.adapters.registry.sql.lookup import find_alias, find_target, find_version
from rootstock.adapters.registry.sql.resolutions import Resolutions
from rootstock.adapters.registry.sql.rollout.rollback_rules import find_rule, remove_rule, set_rule
from rootstock.adapters.registry.sql.rollout.rollouts import carry_out, rollouts
from rootstock.adapters.registry.sql.rollout.shadows import end_shadow, set_shadow
from rootstock.adapters.registry.sql.rollout.splits import end_split, no_split, write_split
from rootstock.adapters.registry.sql.tables import AdapterRow, AliasRow, DeletedVersionRow, VersionRow
from rootstock.adapters.registry.sql.visibility import candidates, find_adapter, find_own, named
from rootstock.adapters.registry.sql.webhooks.event_cursors import EventCursors

STALE_AFTER = 1.0
# The key of a version's record under which the signature of its upload is.
_SIGNATURE = "signature"


class SqlRegistry:
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
        self._database = Database(url, busy_timeout, upgrade)
        self._resolutions = Resolutions(cache_size)
        self._clock = clock
        self._looked = clock()
        self._looking = threading.Lock()
        # A change of keys changes no resolution, so it drops none: no adapter has this name.
        self.keys = SqlKeyRegistry(self._database, lambda number: self._resolutions.renew(number, ""))
        self.webhooks = EventCursors(self._database)
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

    def publish(
        self,
        name: str,
        digest: str,
        *,
        task: str,
        verification: dict[str, Any],
        size: int,
        activate: bool = True,
        foundation: str | None = None,
        viewer: Viewer | None = None,
    ) -> Published:
        """Give `digest` the next version number under `name`, or find the number that it has already.

        With `activate`, point `live` at that version. A number that it has already keeps its record, apart from a
        new signature.
        """
        stored = _new_name(name, viewer)
        check_digest(digest)
        with self._writing(stored, viewer) as (session, history):
            adapter = _adapter(session, stored)
            row = session.scalars(
                select(VersionRow).where(VersionRow.adapter == stored, VersionRow.digest == digest)
            ).one_or_none()
            created = row is None
            if row is not None and row.status != READY:
                # The caller has just stored the bytes again.
                history.note(f"marked_{READY}", stored, version=row.number, before=row.status, after=READY)
                row.status = READY
            if row is None:
                row = _version(adapter, digest, task, verification, size, foundation, history.who)
                session.add(row)
                session.flush()
                history.note("published", stored, version=row.number, digest=digest)
            elif _signs_anew(row.verification, verification):
                former, new = _signer(row.verification), _signer(verification)
                row.verification = {**row.verification, _SIGNATURE: verification[_SIGNATURE]}
                history.note("signed", stored, version=row.number, signer=new, before=former, after=new)
            before = live_version(session, stored)
            if activate and before != row.number:
                move_live(session, history, stored, row.number)
                history.note("alias_set", stored, version=row.number, alias=LIVE, before=before)
            live = row.number if activate else before
            return Published(named(stored, viewer), row.number, digest, created, live)

    def publish_all(
        self, versions: Sequence[NewVersion], viewer: Viewer | None = None
    ) -> builtins.list[Published]:
        """Publish the versions and point `live` at each, in one transaction.

        A version whose digest the name holds already changes nothing.
        """
        stored = [replace(version, name=_new_name(version.name, viewer)) for version in versions]
        for version in versions:
            check_digest(version.digest)
        with self._writing(None, viewer) as (session, history):
            done = publish_all(session, stored, _now(), history)
        return [replace(one, name=named(one.name, viewer)) for one in done]

    def set_alias(self, name: str, alias: str, version: int, viewer: Viewer | None = None) -> AliasPointer:
        """Point `alias` of `name` at `version`; a move of `live` goes into the history that `rollback` uses."""
        check_alias(alias)
        with self._changing(name, viewer) as (session, history, adapter):
            target = find_version(session, adapter, version, viewer)
            row = session.get(AliasRow, (adapter.name, alias))
            before = None if row is None else row.version
            if before != version:
                if alias == LIVE:
                    move_live(session, history, adapter.name, version)
                else:
                    point(session, history, adapter.name, alias, version)
                history.note("alias_set", adapter.name, version=version, alias=alias, before=before)
            return AliasPointer(named(adapter.name, viewer), alias, version, target.digest)

    def request_activation(self, name: str, version: int, viewer: Viewer | None = None) -> None:
        """Record the request that `live` should point at `version`, unless that is the version's last event."""
        with self._changing(name, viewer) as (session, history, adapter):
            find_version(session, adapter, version, viewer)
            before = live_version(session, adapter.name)
            history.note_once("activation_requested", adapter.name, version, LIVE, before=before)

    def rollback(self, name: str, viewer: Viewer | None = None) -> AliasPointer:
        """Point `live` at its previous version that still exists; raise NoPreviousVersion if there is none."""
        with self._changing(name, viewer) as (session, history, adapter):
            called = named(adapter.name, viewer)
            before = live_version(session, adapter.name)
            version = step_back(session, history, adapter.name, called)
            history.note("rolled_back", adapter.name, version=version, alias=LIVE, before=before)
            return AliasPointer(called, LIVE, version, find_version(session, adapter, version).digest)

    def set_shadow(self, name: str, version: int, percent: float, viewer: Viewer | None = None) -> NamedShadow:
        """Let a version compute a share of live's requests without answering them."""
        with self._changing(name, viewer) as (session, history, adapter):
            called, target = named(adapter.name, viewer), find_version(session, adapter, version, viewer)
            return NamedShadow(called, set_shadow(session, history, target, percent, called))

    def end_shadow(self, name: str, viewer: Viewer | None = None) -> NamedShadow:
        """End the shadow of an adapter and return it; raise NoShadow if it has none."""
        with self._changing(name, viewer) as (session, history, adapter):
            called = named(adapter.name, viewer)
            return NamedShadow(called, end_shadow(session, history, adapter.name, called))

    def set_rule(self, name: str, rule: RollbackRule, viewer: Viewer | None = None) -> NamedRule:
        """Set the rollback rule of an adapter; raise InvalidRule for a value outside its bounds."""
        with self._changing(name, viewer) as (session, history, adapter):
            set_rule(session, history, adapter.name, rule)
            return NamedRule(named(adapter.name, viewer), rule)

    def rule(self, name: str, viewer: Viewer | None = None) -> NamedRule:
        """Return the rollback rule of an adapter; raise NoRule if it has none."""
        with self._database.reading() as session:
            adapter = find_adapter(session, name, viewer)
            called = named(adapter.name, viewer)
            return NamedRule(called, find_rule(session, adapter.name, called))

    def remove_rule(self, name: str, viewer: Viewer | None = None) -> NamedRule:
        """Remove the rollback rule of an adapter and return it; raise NoRule if it has none."""
        with self._changing(name, viewer) as (session, history, adapter):
            called = named(adapter.name, viewer)
            return NamedRule(called, remove_rule(session, history, adapter.name, called))

    def rollouts(self, since: int = -1) -> tuple[int, builtins.list[Rollout]] | None:
        """Return the revision, and every adapter with a shadow or a rule; None if it is still `since`."""
        with self._database.reading() as session:
            # Read the revision first: what is read after it may be newer, and is then read again.
            number = revision(session)
            return None if number == since else (number, rollouts(session))

    def carry_out(self, verdict: RuleVerdict) -> bool:
        """End a split or a shadow, or move `live` back, as a verdict asks; return whether anything changed."""
        by_rule = Viewer(split_stored(verdict.name)[0], RULE)
        with self._writing(verdict.name, by_rule) as (session, history):
            return carry_out(session, history, verdict)

    def set_split(
        self, name: str, alias: str, candidates: Mapping[int, float], viewer: Viewer | None = None
    ) -> AliasSplit:
        """Let versions answer these percents of an alias's requests, in place of the split that it has.

        A move of the alias ends the split. Raise InvalidSplit for shares that versions cannot have.
        """
        check_alias(alias)
        with self._changing(name, viewer) as (session, history, adapter):
            return write_split(session, history, adapter, alias, candidates, viewer)

    def end_split(
        self, name: str, alias: str, detail: Mapping[str, Any] | None = None, viewer: Viewer | None = None
    ) -> AliasPointer:
        """Let an alias mean one version again; raise NoSplit if it has no split. The event has `detail` too."""
        check_alias(alias)
        with self._changing(name, viewer) as (session, history, adapter):
            pointer = find_alias(session, adapter, alias, viewer)
            called = named(adapter.name, viewer)
            if end_split(session, history, adapter.name, alias, detail or {"reason": "asked"}) is None:
                raise no_split(called, alias)
            target = find_version(session, adapter, pointer.version, viewer)
            return AliasPointer(called, alias, pointer.version, target.digest)

    def share(self, name: str, shared: bool, viewer: Viewer | None = None) -> Sharing:
        """Let all tenants use an adapter, or its tenant alone."""
        with self._changing(name, viewer) as (_, history, adapter):
            if adapter.shared != shared:
                adapter.shared = shared
                what = "shared" if shared else "unshared"
                history.note(what, adapter.name, before=not shared, after=shared)
            return Sharing(named(adapter.name, viewer), shared)

    def delete_version(
        self,
        name: str,
        version: int,
        *,
        force: bool = False,
        restorable: bool = False,
        viewer: Viewer | None = None,
    ) -> str:
        """Delete a version and return its digest; with `restorable`, it can come back until it is purged.

        Raise VersionInUse if an alias, a split or a shadow uses it, unless `force`, which removes these too.
        Without `restorable`, a version that is deleted already is purged.
        """
        with self._writing(self._own_name(name, viewer), viewer) as (session, history):
            return delete_version(
                session, history, name, version, force=force, restorable=restorable, viewer=viewer
            )

    def delete_adapter(
        self, name: str, *, restorable: bool = False, viewer: Viewer | None = None
    ) -> builtins.list[str]:
        """Delete an adapter with its versions and aliases; return the digests in order of version number.

        With `restorable`, the versions can come back until they are purged. Without it, those that are deleted
        already are purged too.
        """
        with self._writing(self._own_name(name, viewer), viewer) as (session, history):
            return delete_adapter(session, history, name, restorable=restorable, viewer=viewer)

    def deleted(self, name: str, viewer: Viewer | None = None) -> builtins.list[DeletedVersion]:
        """Return the versions of an adapter that can come back, in order of number; it may be deleted itself."""
        with self._database.reading() as session:
            stored, rows = find_deleted(session, name, viewer)
            return [deleted_version(row, named(stored, viewer)) for row in rows]

    def undelete(self, name: str, version: int | None = None, viewer: Viewer | None = None) -> Undeleted:
        """Bring a deleted version back with its aliases that are free; None: all that the adapter had.

        Raise UnknownVersion if there is none, and AlreadyPublished if a later version has its content.
        """
        with self._writing(self._own_name(name, viewer), viewer) as (session, history):
            return undelete(session, history, name, version, viewer)

    def expired(self, before: datetime, limit: int = 100) -> builtins.list[DeletedVersion]:
        """Return the first `limit` versions of all tenants that were deleted at or before a time.

        Their names are the stored ones.
        """
        with self._database.reading() as session:
            return expired(session, before, limit)

    def purge(self, stored: str, version: int, before: datetime, viewer: Viewer | None = None) -> str | None:
        """Forget a version that was deleted at or before a time, and return its digest; None if it was not."""
        with self._writing(stored, viewer) as (session, history):
            return purge(session, history, stored, version, before)

    def surplus(self, name: str, newest: int, viewer: Viewer | None = None) -> builtins.list[str]:
        """Return the digests of the versions that `retire` would delete now."""
        with self._database.reading() as session:
            return [row.digest for row in surplus(session, find_own(session, name, viewer).name, newest)]

    def retire(
        self, name: str, newest: int, *, restorable: bool = False, viewer: Viewer | None = None
    ) -> builtins.list[str]:
        """Delete all versions but the newest ones and those in use, as `delete_version` does; return the digests.

        In use are versions of aliases, splits and shadows, and the one that a rollback makes live.
        """
        with self._changing(name, viewer) as (session, history, adapter):
            return retire(session, history, adapter.name, newest, restorable)

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

    @contextmanager
    def _writing(self, stored: str | None, viewer: Viewer | None) -> Iterator[tuple[Session, History]]:
        """Yield a session that writes; `stored` is the one adapter that it changes, or None for several."""
        with self._database.writing(stored) as (session, new_revision):
            yield session, History(session, viewer, _now())
        self._resolutions.renew(new_revision, stored)

    @contextmanager
    def _changing(self, path: str, viewer: Viewer | None) -> Iterator[tuple[Session, History, AdapterRow]]:
        """Yield a session that changes an adapter of the viewer, and the adapter."""
        with self._writing(self._own_name(path, viewer), viewer) as (session, history):
            yield session, history, find_own(session, path, viewer)

    @staticmethod
    def _own_name(path: str, viewer: Viewer | None) -> str | None:
        """Return the stored name of the one adapter of the viewer that a path may mean."""
        parts = split_path(path)
        # Of the names that a path may mean, the first one alone can be the viewer's.
        return None if parts is None else candidates(*parts, viewer)[0][0]

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


def _signer(verification: dict[str, Any]) -> str | None:
    signer: str | None = verification.get(_SIGNATURE, {}).get("signer")
    return signer


def _signs_anew(before: dict[str, Any], now: dict[str, Any]) -> bool:
    return _SIGNATURE in now and before.get(_SIGNATURE) != now[_SIGNATURE]


def _adapter(session: Session, name: str) -> AdapterRow:
    row = session.get(AdapterRow, name)
    if row is None:
        row = AdapterRow(name=name, next_version=1, created_at=_now(), tenant=split_stored(name)[0], shared=False)
        session.add(row)
        session.flush()
    elif row.deleted_at is not None:
        row.deleted_at, row.created_at = None, _now()
    return row


def _version(
    adapter: AdapterRow,
    digest: str,
    task: str,
    verification: dict[str, Any],
    size: int,
    foundation: str | None,
    who: str | None,
) -> VersionRow:
    number = adapter.next_version
    adapter.next_version = number + 1
    return VersionRow(
        adapter=adapter.name,
        number=number,
        digest=digest,
        task=task,
        status=READY,
        size=size,
        verification=verification,
        created_at=_now(),
        foundation=foundation,
        published_by=who,
    )


def _new_name(path: str, viewer: Viewer | None) -> str:
    """Return the stored name of an adapter to publish. Raise InvalidName if it cannot be one."""
    if viewer is not None:
        return stored_name(viewer.tenant, check_name(path))
    tenant, name = split_stored(path) if isinstance(path, str) else (DEFAULT_TENANT, path)
    return stored_name(check_tenant(tenant), check_name(name))


def _now() -> datetime:
    return datetime.now(UTC)
