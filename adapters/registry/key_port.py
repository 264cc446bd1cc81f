"""The interface of a registry of keys and quotas."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from rootstock.adapters.registry.key_records import KeyRecord, KeySnapshot, NewKey, Quota


class KeyRegistry(Protocol):
    """A store of keys by id and of tenants' quotas. It is safe for many threads and processes.

    A key is never removed, so that a server which had keys does not open when the last one ends.
    """

    def revision(self) -> int:
        """Return the number of writes that the registry has seen; it grows with each change of a key."""

    def snapshot(self) -> KeySnapshot:
        """Return all keys and all quotas of tenants."""

    def add(self, key: NewKey) -> KeyRecord:
        """Store a new key."""

    def replace(self, old: str, key: NewKey, ends_at: datetime) -> KeyRecord:
        """Store a new key, and let an old one end at `ends_at` unless it ends before, in one transaction.

        Raise UnknownKey if there is no old one, and EndedKey if it is revoked.
        """

    def find(self, id: str) -> KeyRecord:
        """Return a key; raise UnknownKey if there is none."""

    def revoke(self, id: str, now: datetime) -> KeyRecord:
        """Revoke a key; one that is revoked keeps its time. Raise UnknownKey if there is none."""

    def tenant_quota(self, tenant: str) -> Quota:
        """Return the quota of a tenant, which is without limits if none was set."""

    def set_tenant_quota(self, tenant: str, quota: Quota) -> None:
        """Set the quota of a tenant."""

    def stored_bytes(self, tenant: str, besides: str | None = None) -> int:
        """Return the bytes of a tenant's bundles, each digest once, without the digest `besides`."""
