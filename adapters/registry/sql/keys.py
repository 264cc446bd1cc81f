"""The registry of keys and quotas in a SQL database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import cast

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from rootstock.adapters.errors import EndedKey
from rootstock.adapters.registry.key_records import (
    KeyRecord,
    KeySnapshot,
    NewKey,
    Quota,
    Role,
    is_key_id,
    unknown_key,
)
from rootstock.adapters.registry.sql.database import Database, revision
from rootstock.adapters.registry.sql.tables import AdapterRow, DeletedVersionRow, KeyRow, QuotaRow, VersionRow

_KEY, _TENANT = "key/", "tenant/"


class SqlKeyRegistry:
    """The keys and quotas of one database. `wrote` is called with the revision of each write."""

    def __init__(self, database: Database, wrote: Callable[[int], None]) -> None:
        self._database = database
        self._wrote = wrote

    def revision(self) -> int:
        """Return the number of writes that the database has seen."""
        with self._database.reading() as session:
            return revision(session)

    def snapshot(self) -> KeySnapshot:
        """Return all keys and all quotas of tenants."""
        with self._database.reading() as session:
            quotas = {row.holder: _quota(row) for row in session.scalars(select(QuotaRow))}
            rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at, KeyRow.id))
            keys = {row.id: _record(row, quotas.get(_KEY + row.id)) for row in rows}
            tenants = {
                holder.removeprefix(_TENANT): quota
                for holder, quota in quotas.items()
                if holder.startswith(_TENANT)
            }
            return KeySnapshot(revision(session), keys, tenants)

    def add(self, key: NewKey) -> KeyRecord:
        """Store a new key."""
        with self._database.writing() as (session, new_revision):
            record = _add(session, key)
        self._wrote(new_revision)
        return record

    def replace(self, old: str, key: NewKey, ends_at: datetime) -> KeyRecord:
        """Store a new key, and let an old one end at `ends_at` unless it ends before, in one transaction.

        Raise UnknownKey if there is no old one, and EndedKey if it is revoked.
        """
        with self._database.writing() as (session, new_revision):
            row = _find(session, old)
            if row.revoked_at is not None:
                raise EndedKey(f"the key {old} is revoked; create a new one instead")
            row.expires_at = ends_at if row.expires_at is None else min(row.expires_at, ends_at)
            record = _add(session, key)
        self._wrote(new_revision)
        return record

    def find(self, id: str) -> KeyRecord:
        """Return a key; raise UnknownKey if there is none."""
        with self._database.reading() as session:
            return _record(_find(session, id), _quota(session.get(QuotaRow, _KEY + id)))

    def revoke(self, id: str, now: datetime) -> KeyRecord:
        """Revoke a key; one that is revoked keeps its time. Raise UnknownKey if there is none."""
        with self._database.writing() as (session, new_revision):
            row = _find(session, id)
            row.revoked_at = row.revoked_at or now
            record = _record(row, _quota(session.get(QuotaRow, _KEY + id)))
        self._wrote(new_revision)
        return record

    def tenant_quota(self, tenant: str) -> Quota:
        """Return the quota of a tenant, which is without limits if none was set."""
        with self._database.reading() as session:
            return _quota(session.get(QuotaRow, _TENANT + tenant))

    def set_tenant_quota(self, tenant: str, quota: Quota) -> None:
        """Set the quota of a tenant."""
        with self._database.writing() as (session, new_revision):
            session.merge(QuotaRow(holder=_TENANT + tenant, **asdict(quota)))
        self._wrote(new_revision)

    def stored_bytes(self, tenant: str, besides: str | None = None) -> int:
        """Return the bytes of a tenant's bundles, each digest once, without the digest `besides`.

        Those of deleted versions count until they are purged.
        """
        own = select(AdapterRow.name).where(AdapterRow.tenant == tenant)
        # The bytes of a deleted version stay until it is purged.
        versions = union_all(
            *(
                select(table.digest, table.size).where(table.adapter.in_(own))
                for table in (VersionRow, DeletedVersionRow)
            )
        ).subquery()
        sizes = select(func.max(versions.c.size).label("size")).group_by(versions.c.digest)
        if besides is not None:
            sizes = sizes.where(versions.c.digest != besides)
        with self._database.reading() as session:
            return session.scalar(select(func.sum(sizes.subquery().c.size))) or 0


def _add(session: Session, key: NewKey) -> KeyRecord:
    row = KeyRow(
        id=key.id,
        tenant=key.tenant,
        role=key.role,
        hash=key.hash,
        label=key.label,
        created_at=datetime.now(UTC),
        expires_at=key.expires_at,
        revoked_at=None,
    )
    session.add(row)
    if not key.quota.unlimited:
        session.add(QuotaRow(holder=_KEY + key.id, **asdict(key.quota)))
    session.flush()
    return _record(row, key.quota)


def _find(session: Session, id: str) -> KeyRow:
    row = session.get(KeyRow, id) if is_key_id(id) else None
    if row is None:
        raise unknown_key(id)
    return row


def _quota(row: QuotaRow | None) -> Quota:
    if row is None:
        return Quota()
    return Quota(row.requests_per_minute, row.tokens_per_minute, row.stored_mb)


def _record(row: KeyRow, quota: Quota | None) -> KeyRecord:
    return KeyRecord(
        row.id,
        row.tenant,
        cast(Role, row.role),
        row.hash,
        row.label,
        row.created_at,
        row.expires_at,
        row.revoked_at,
        quota or Quota(),
    )
