"""Deletes versions for good, or so that they can come back; brings them back; and purges them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from rootstock.adapters.errors import AlreadyPublished, UnknownVersion, VersionInUse
from rootstock.adapters.reference import LIVE, shown, split_path
from rootstock.adapters.registry.records import DeletedVersion, Undeleted, Viewer
from rootstock.adapters.registry.sql.history import History
from rootstock.adapters.registry.sql.live import move_live, point
from rootstock.adapters.registry.sql.lookup import find_version
from rootstock.adapters.registry.sql.rollout.shadows import end_shadow, shadow_of
from rootstock.adapters.registry.sql.rollout.splits import aliases_split_over, end_splits_of
from rootstock.adapters.registry.sql.tables import (
    AdapterRow,
    AliasRow,
    DeletedVersionRow,
    LiveRow,
    RollbackRuleRow,
    ShadowRow,
    SplitRow,
    VersionRow,
)
from rootstock.adapters.registry.sql.visibility import candidates, find_own, named, words

# The columns that a version keeps while it is deleted.
_KEPT = (
    "adapter", "number", "digest", "task", "status", "size", "verification", "created_at", "foundation",
    "published_by",
)  # fmt: skip


def delete_version(
    session: Session,
    history: History,
    path: str,
    number: int,
    *,
    force: bool,
    restorable: bool,
    viewer: Viewer | None,
) -> str:
    """Delete a version and return its digest. Without `restorable`, purge it if it is deleted already.

    Raise VersionInUse if requests reach it by an alias, a split or a shadow, unless `force`, which ends these.
    """
    stored, gone = find_deleted(session, path, viewer)
    row = next((one for one in gone if one.number == number), None)
    if row is not None and not restorable:
        return _purge(session, history, row)
    version = find_version(session, find_own(session, path, viewer), number, viewer)
    aliases = _aliases(session, stored, number)
    splits, shadow = aliases_split_over(session, stored, number), shadow_of(session, stored)
    is_shadow = shadow is not None and shadow.version == number
    if (aliases or splits or is_shadow) and not force:
        raise _in_use(named(stored, viewer), number, aliases, splits, is_shadow)
    if is_shadow:
        end_shadow(session, history, stored, stored, {"reason": "version_deleted"})
    remove_version(session, history, version, aliases, restorable)
    return version.digest


def delete_adapter(
    session: Session, history: History, path: str, *, restorable: bool, viewer: Viewer | None
) -> list[str]:
    """Delete an adapter with its versions and aliases; return the digests in order of version number.

    Without `restorable`, purge its deleted versions too, also if the adapter itself is deleted.
    """
    stored, gone = find_deleted(session, path, viewer)
    adapter = session.get(AdapterRow, stored)
    purged = [] if restorable else gone
    if adapter is None or adapter.deleted_at is not None:
        if not purged:
            find_own(session, path, viewer)
        return [_purge(session, history, row) for row in purged]
    rows = session.scalars(
        select(VersionRow).where(VersionRow.adapter == stored).order_by(VersionRow.number)
    ).all()
    digests = {row.number: row.digest for row in rows} | {row.number: row.digest for row in purged}
    now = datetime.now(UTC)
    if restorable:
        pointed: dict[int, list[str]] = {}
        for alias in session.scalars(select(AliasRow).where(AliasRow.adapter == stored).order_by(AliasRow.alias)):
            pointed.setdefault(alias.version, []).append(alias.alias)
        session.add_all(_kept(row, pointed.get(row.number, []), now) for row in rows)
    for table in (AliasRow, LiveRow, SplitRow, ShadowRow, RollbackRuleRow, VersionRow):
        session.execute(delete(table).where(table.adapter == stored))
    # A later adapter of this name begins as its tenant's alone.
    adapter.deleted_at, adapter.shared = now, False
    more: dict[str, Any] = {"restorable": True} if restorable else {}
    history.note("adapter_deleted", stored, versions=[row.number for row in rows], **more)
    for row in purged:
        _purge(session, history, row)
    return [digest for _, digest in sorted(digests.items())]


def remove_version(
    session: Session,
    history: History,
    row: VersionRow,
    aliases: Sequence[str],
    restorable: bool,
) -> None:
    """Take a version out of the adapter, with these aliases and the splits that it has a part in."""
    stored, number = row.adapter, row.number
    if restorable:
        session.add(_kept(row, aliases, datetime.now(UTC)))
    end_splits_of(session, history, stored, number)
    # A shadow without effect, because its version is live, shall not come back with the version.
    session.execute(delete(ShadowRow).where(ShadowRow.adapter == stored, ShadowRow.version == number))
    session.execute(delete(AliasRow).where(AliasRow.adapter == stored, AliasRow.version == number))
    session.execute(delete(LiveRow).where(LiveRow.adapter == stored, LiveRow.version == number))
    session.execute(delete(VersionRow).where(VersionRow.adapter == stored, VersionRow.number == number))
    more: dict[str, Any] = {"restorable": True} if restorable else {}
    history.note("version_deleted", stored, version=number, digest=row.digest, aliases=list(aliases), **more)


def find_deleted(session: Session, path: str, viewer: Viewer | None) -> tuple[str, list[DeletedVersionRow]]:
    """Return the stored name of an adapter of the viewer, and its deleted versions in order of number.

    The adapter itself may be deleted. Raise UnknownAdapter without it and them, and NotOwner as `find_own` does.
    """
    parts = split_path(path)
    if parts is not None:
        # Of the names that a path may mean, the first one alone can be the viewer's.
        stored, is_foreign = candidates(*parts, viewer)[0]
        query = select(DeletedVersionRow).where(DeletedVersionRow.adapter == stored)
        rows = [] if is_foreign else session.scalars(query.order_by(DeletedVersionRow.number)).all()
        if rows:
            return stored, list(rows)
    return find_own(session, path, viewer).name, []


def undelete(
    session: Session, history: History, path: str, number: int | None, viewer: Viewer | None
) -> Undeleted:
    """Bring a deleted version back; None: all that were deleted with their adapter.

    Each gets back those of its aliases that point at nothing now. Raise UnknownVersion if there is no such
    deleted version, and AlreadyPublished if a later version has its content.
    """
    stored, gone = find_deleted(session, path, viewer)
    called = named(stored, viewer)
    adapter = session.get_one(AdapterRow, stored)
    if number is None:
        chosen = [row for row in gone if row.deleted_at == adapter.deleted_at]
    else:
        chosen = [row for row in gone if row.number == number]
    if not chosen:
        raise _not_deleted(called, number, gone, adapter)
    adapter.deleted_at = None
    aliases: dict[str, int] = {}
    for row in chosen:
        _check_new(session, row, called)
        session.add(VersionRow(**{column: getattr(row, column) for column in _KEPT}))
        session.delete(row)
        session.flush()
        history.note("version_restored", stored, version=row.number, digest=row.digest)
        for alias in row.aliases:
            if session.get(AliasRow, (stored, alias)) is not None:
                continue
            if alias == LIVE:
                move_live(session, history, stored, row.number)
            else:
                point(session, history, stored, alias, row.number)
            history.note("alias_set", stored, version=row.number, alias=alias, before=None)
            aliases[alias] = row.number
    return Undeleted(called, [row.number for row in chosen], aliases)


def purge(session: Session, history: History, stored: str, number: int, before: datetime) -> str | None:
    """Forget a version that was deleted at or before a time, and return its digest; None if it was not."""
    row = session.get(DeletedVersionRow, (stored, number))
    return None if row is None or row.deleted_at > before else _purge(session, history, row)


def expired(session: Session, before: datetime, limit: int) -> list[DeletedVersion]:
    """Return the first `limit` versions that were deleted at or before a time, by their stored names."""
    query = select(DeletedVersionRow).where(DeletedVersionRow.deleted_at <= before)
    rows = session.scalars(query.order_by(DeletedVersionRow.deleted_at).limit(limit))
    return [deleted_version(row, row.adapter) for row in rows]


def deleted_version(row: DeletedVersionRow, called: str) -> DeletedVersion:
    """Return the row of a deleted version as a record of the adapter `called`."""
    return DeletedVersion(
        name=called,
        version=row.number,
        digest=row.digest,
        task=row.task,
        size=row.size,
        created_at=row.created_at,
        deleted_at=row.deleted_at,
        aliases=list(row.aliases),
    )


def is_published(session: Session, digest: str) -> bool:
    """Return whether a version that requests can mean has this digest."""
    return session.scalars(select(VersionRow.number).where(VersionRow.digest == digest)).first() is not None


def is_in_use(session: Session, digest: str) -> bool:
    """Return whether a version has this digest, or a deleted one that can still come back."""
    gone = select(DeletedVersionRow.number).where(DeletedVersionRow.digest == digest)
    return is_published(session, digest) or session.scalars(gone).first() is not None


def _purge(session: Session, history: History, row: DeletedVersionRow) -> str:
    history.note("version_purged", row.adapter, version=row.number, digest=row.digest)
    session.delete(row)
    session.flush()
    return row.digest


def _kept(row: VersionRow, aliases: Sequence[str], now: datetime) -> DeletedVersionRow:
    columns = {column: getattr(row, column) for column in _KEPT}
    return DeletedVersionRow(**columns, aliases=list(aliases), deleted_at=now)


def _aliases(session: Session, stored: str, number: int) -> list[str]:
    query = select(AliasRow.alias).where(AliasRow.adapter == stored, AliasRow.version == number)
    return list(session.scalars(query.order_by(AliasRow.alias)))


def _in_use(
    called: str, number: int, aliases: Sequence[str], splits: Sequence[str], shadow: bool
) -> VersionInUse:
    version = f"version {number} of adapter {called!r} is in use by"
    if aliases:
        return VersionInUse(
            f"{version} the aliases: {', '.join(aliases)}; move the aliases first, or force the deletion to "
            "remove them with the version"
        )
    users = [f"the split of {alias!r}" for alias in splits] + ["the shadow of 'live'"] * shadow
    return VersionInUse(f"{version} {' and '.join(users)}; end it first, or force the deletion")


def _check_new(session: Session, row: DeletedVersionRow, called: str) -> None:
    same = (VersionRow.adapter == row.adapter, VersionRow.digest == row.digest)
    number = session.scalar(select(VersionRow.number).where(*same))
    if number is not None:
        raise AlreadyPublished(
            f"the content of the deleted version {row.number} of adapter {called!r} is version {number} now; use "
            f"{called}@{number}"
        )


def _not_deleted(
    called: str, number: int | None, gone: Sequence[DeletedVersionRow], adapter: AdapterRow
) -> UnknownVersion:
    known = [str(row.number) for row in gone]
    if number is not None:
        hint = f"versions that can come back: {words(known)}" if known else "none can come back"
        return UnknownVersion(f"adapter {called!r} has no deleted version {shown(number)}; {hint}")
    state = "is not deleted" if adapter.deleted_at is None else "was deleted with versions that are purged"
    if not known:
        return UnknownVersion(f"adapter {called!r} {state}, and has no version that can come back")
    return UnknownVersion(f"adapter {called!r} {state}; name a version that can come back: {words(known)}")
