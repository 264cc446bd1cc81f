"""The registry of adapters: what is published, what aliases point at, and what happened."""

import builtins
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from rootstock.adapters.errors import InvalidName, RegistryUnavailable, VersionInUse
from rootstock.adapters.reference import LIVE, Reference, check_alias, check_digest, check_name, is_name, shown
from rootstock.adapters.registry.records import (
    AdapterDetail,
    AliasPointer,
    Event,
    NewVersion,
    Page,
    Published,
    Resolution,
    VersionDetail,
)
from rootstock.adapters.registry.sql.bulk import publish_all
from rootstock.adapters.registry.sql.database import Database, revision
from rootstock.adapters.registry.sql.listing import adapter_detail, newest_events, page, version_detail
from rootstock.adapters.registry.sql.live import live_version, move_live, point, step_back
from rootstock.adapters.registry.sql.lookup import find_adapter, find_target, find_version
from rootstock.adapters.registry.sql.resolutions import Resolutions
from rootstock.adapters.registry.sql.tables import READY, AdapterRow, AliasRow, EventRow, LiveRow, VersionRow

STALE_AFTER = 1.0


class SqlRegistry:
    """Names, versions, aliases and events in one database; safe to use from many threads and processes.

    A change made through this SqlRegistry is seen by every look-up that starts after the call returned. A change
    made by another process is seen at most STALE_AFTER seconds plus one query later by look-ups of references
    that are in memory here, and at once by all others. While the database cannot be read, references that are
    in memory keep resolving; `ping` tells.
    """

    def __init__(
        self,
        url: str,
        *,
        cache_size: int = 16_384,
        busy_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the database at `url`, creating or upgrading it as needed.

        Raise UnsafeRegistry where it is newer.
        """
        self._database = Database(url, busy_timeout)
        self._resolutions = Resolutions(cache_size)
        self._clock = clock
        self._looked = clock()
        self._looking = threading.Lock()

    def resolve(self, reference: str | Reference) -> Resolution:
        """Return the one version that `reference` means now; a bare name means `live`."""
        written = str(reference) if isinstance(reference, Reference) else reference
        self._look_for_changes()
        resolution = self._resolutions.get(written) if isinstance(written, str) else None
        if resolution is not None:
            return resolution
        parsed = reference if isinstance(reference, Reference) else Reference.parse(reference)
        with self._database.reading() as session:
            resolved, seen = find_target(session, parsed)
        self._resolutions.keep(written, resolved, seen)
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
    ) -> Published:
        """Give `digest` the next number under `name`, or find the one it has; `activate` moves `live` to it."""
        check_name(name)
        check_digest(digest)
        with self._writing(name) as session:
            adapter = _adapter(session, name)
            row = session.scalars(
                select(VersionRow).where(VersionRow.adapter == name, VersionRow.digest == digest)
            ).one_or_none()
            created = row is None
            if row is None:
                row = _version(adapter, digest, task, verification, size, foundation)
                session.add(row)
                session.flush()
                _note(session, "published", name, version=row.number, digest=digest)
            before = live_version(session, name)
            if activate and before != row.number:
                move_live(session, name, row.number)
                _note(session, "alias_set", name, version=row.number, alias=LIVE, before=before)
            live = row.number if activate else before
            return Published(name, row.number, digest, created, live)

    def publish_all(self, versions: Sequence[NewVersion]) -> builtins.list[Published]:
        """Publish each and move `live` to it, in one transaction; what a name holds already changes nothing."""
        for version in versions:
            check_name(version.name)
            check_digest(version.digest)
        with self._writing() as session:
            return publish_all(session, versions, _now())

    def set_alias(self, name: str, alias: str, version: int) -> AliasPointer:
        """Point `alias` of `name` at `version`; moving `live` goes into the history that `rollback` walks."""
        check_alias(alias)
        with self._writing(name) as session:
            target = find_version(session, name, version)
            row = session.get(AliasRow, (name, alias))
            before = None if row is None else row.version
            if before != version:
                if alias == LIVE:
                    move_live(session, name, version)
                else:
                    point(session, name, alias, version)
                _note(session, "alias_set", name, version=version, alias=alias, before=before)
            return AliasPointer(name, alias, version, target.digest)

    def rollback(self, name: str) -> AliasPointer:
        """Point `live` at its position before, skipping deleted versions; else raise NoPreviousVersion."""
        with self._writing(name) as session:
            find_adapter(session, name)
            before = live_version(session, name)
            version = step_back(session, name)
            _note(session, "rolled_back", name, version=version, alias=LIVE, before=before)
            return AliasPointer(name, LIVE, version, find_version(session, name, version).digest)

    def delete_version(self, name: str, version: int, *, force: bool = False) -> str:
        """Remove a version and return its digest.

        Raise VersionInUse where aliases point at it, unless `force`.
        """
        with self._writing(name) as session:
            row = find_version(session, name, version)
            here = (AliasRow.adapter == name, AliasRow.version == version)
            aliases = list(session.scalars(select(AliasRow.alias).where(*here).order_by(AliasRow.alias)))
            if aliases and not force:
                raise VersionInUse(
                    f"version {version} of adapter {name!r} is what {', '.join(aliases)} point(s) at: "
                    "move the aliases first, or force the deletion to drop them with it"
                )
            session.execute(delete(AliasRow).where(*here))
            session.execute(delete(LiveRow).where(LiveRow.adapter == name, LiveRow.version == version))
            session.execute(delete(VersionRow).where(VersionRow.adapter == name, VersionRow.number == version))
            _note(session, "version_deleted", name, version=version, digest=row.digest, aliases=aliases)
            return row.digest

    def delete_adapter(self, name: str) -> builtins.list[str]:
        """Remove an adapter with its versions and aliases, and return the digests in order of version."""
        with self._writing(name) as session:
            adapter = find_adapter(session, name)
            rows = session.execute(
                select(VersionRow.number, VersionRow.digest)
                .where(VersionRow.adapter == name)
                .order_by(VersionRow.number)
            ).all()
            session.execute(delete(AliasRow).where(AliasRow.adapter == name))
            session.execute(delete(LiveRow).where(LiveRow.adapter == name))
            session.execute(delete(VersionRow).where(VersionRow.adapter == name))
            adapter.deleted_at = _now()
            digests = [digest for _, digest in rows]
            _note(session, "adapter_deleted", name, versions=[number for number, _ in rows])
            return digests

    def list(self, limit: int = 100, after: str | None = None) -> Page:
        """Return at most `limit` adapters whose names come after `after`, in order of name."""
        if limit < 1:
            raise ValueError(f"limit is {limit}: give at least 1")
        if after is not None and not is_name(after):
            raise InvalidName(
                f"{shown(after)} is not a name to go on after: give the last page's `next`", param="after"
            )
        with self._database.reading() as session:
            return page(session, limit, after)

    def show(self, name: str) -> AdapterDetail:
        """Return everything about one adapter; else raise UnknownAdapter."""
        with self._database.reading() as session:
            return adapter_detail(session, name)

    def version(self, name: str, number: int) -> VersionDetail:
        """Return everything about one version; else raise UnknownAdapter or UnknownVersion."""
        with self._database.reading() as session:
            return version_detail(find_version(session, name, number))

    def events(self, name: str | None = None, limit: int = 100) -> builtins.list[Event]:
        """Return at most `limit` events, the newest first, of one adapter, deleted or not, or of all."""
        if name is not None and not is_name(name):
            return []
        with self._database.reading() as session:
            return newest_events(session, name, limit)

    def count(self) -> int:
        """Return how many adapters there are."""
        with self._database.reading() as session:
            return session.scalar(select(func.count()).where(AdapterRow.deleted_at.is_(None))) or 0

    def is_empty(self) -> bool:
        """Tell whether there are no adapters now; there may have been some."""
        return self.count() == 0

    def digest_in_use(self, digest: str) -> bool:
        """Tell whether any version of any adapter stands for `digest`."""
        with self._database.reading() as session:
            return (
                session.scalars(select(VersionRow.number).where(VersionRow.digest == digest)).first() is not None
            )

    def ping(self) -> None:
        """Return where the database answers; else raise RegistryUnavailable."""
        self._database.ping()

    def close(self) -> None:
        """Let the database go; every later use is RegistryUnavailable."""
        self._database.close()
        self._resolutions.clear()

    @contextmanager
    def _writing(self, name: str | None = None) -> Iterator[Session]:
        """Give a session that writes; `name`: the one adapter that it changes."""
        with self._database.writing() as (session, written):
            yield session
        self._resolutions.renew(written, name)

    def _look_for_changes(self) -> None:
        now = self._clock()
        if now - self._looked < STALE_AFTER or not self._looking.acquire(blocking=False):
            return
        try:
            with self._database.reading() as session:
                self._resolutions.renew(revision(session))
        except RegistryUnavailable:
            # The state in memory was right when last seen, and serving it beats failing every request.
            pass
        finally:
            self._looked = now
            self._looking.release()


def _adapter(session: Session, name: str) -> AdapterRow:
    row = session.get(AdapterRow, name)
    if row is None:
        row = AdapterRow(name=name, next_version=1, created_at=_now())
        session.add(row)
        session.flush()
    elif row.deleted_at is not None:
        row.deleted_at, row.created_at = None, _now()
    return row


def _version(
    adapter: AdapterRow, digest: str, task: str, verification: dict[str, Any], size: int, foundation: str | None
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
    )


def _note(
    session: Session, what: str, name: str, version: int | None = None, alias: str | None = None, **detail: Any
) -> None:
    session.add(EventRow(at=_now(), what=what, name=name, version=version, alias=alias, detail=detail))


def _now() -> datetime:
    return datetime.now(UTC)
