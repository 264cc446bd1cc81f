"""The two places of keys that the commands work on: a home's registry, and a server over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from rootstock.adapters.home.home import Home, shared_registry
from rootstock.adapters.home_folder import home_from_environment
from rootstock.adapters.registry.key_issue import IssuedKey, issue_key, rotate_key
from rootstock.adapters.registry.key_port import KeyRegistry
from rootstock.adapters.registry.key_records import KeyRecord, Quota, Role, check_tenant, key_fields

if TYPE_CHECKING:
    from rootstock.adapters.client.client import Client

Document = dict[str, Any]
Limits = Mapping[str, int | None]


class KeyPlace(Protocol):
    """The keys and quotas of one server. The documents are those of its HTTP routes."""

    offline: bool

    def create(self, tenant: str, role: str, label: str, expires_at: datetime | None, limits: Limits) -> Document:
        """Make a key, and return it with its text under `key`."""

    def list(self, tenant: str | None) -> list[Document]:
        """Return the keys of a tenant, or of all, oldest first."""

    def rotate(self, id: str, overlap: timedelta, expires_at: datetime | None) -> Document:
        """Make a key in place of another, and return it with its text under `key`."""

    def revoke(self, id: str) -> None:
        """Revoke a key."""

    def quota(self, tenant: str) -> Document:
        """Return the quota of a tenant."""

    def set_quota(self, tenant: str, limits: Limits) -> Document:
        """Set the quota of a tenant, and return it."""


@contextmanager
def home_keys(folder: Path | None) -> Iterator[KeyPlace]:
    """Open the registry of a home. A server may use it at the same time."""
    home = Home(home_from_environment() if folder is None else folder.expanduser().absolute())
    with closing(home.open_registry(shared_registry())) as registry:
        yield HomeKeys(registry.keys)


@contextmanager
def server_keys(url: str, key: str | None) -> Iterator[KeyPlace]:
    """Open a client of a server."""
    from rootstock.adapters.client.client import Client

    with Client(url, key or None) as client:
        yield ServerKeys(client)


class HomeKeys:
    """The keys in a registry."""

    offline = True

    def __init__(self, registry: KeyRegistry) -> None:
        self._registry = registry

    def create(self, tenant: str, role: str, label: str, expires_at: datetime | None, limits: Limits) -> Document:
        """Make a key, and return it with its text under `key`."""
        now = datetime.now(UTC)
        quota = Quota(**limits)
        return _issued(
            issue_key(
                self._registry, tenant, cast(Role, role), now, label=label, expires_at=expires_at, quota=quota
            )
        )

    def list(self, tenant: str | None) -> list[Document]:
        """Return the keys of a tenant, or of all, oldest first."""
        records = self._registry.snapshot().keys.values()
        return [_shown(record) for record in records if tenant in (None, record.tenant)]

    def rotate(self, id: str, overlap: timedelta, expires_at: datetime | None) -> Document:
        """Make a key in place of another, and return it with its text under `key`."""
        return _issued(
            rotate_key(self._registry, self._registry.find(id), datetime.now(UTC), overlap, expires_at)
        )

    def revoke(self, id: str) -> None:
        """Revoke a key."""
        self._registry.revoke(id, datetime.now(UTC))

    def quota(self, tenant: str) -> Document:
        """Return the quota of a tenant."""
        quota = self._registry.tenant_quota(check_tenant(tenant))
        limits = {
            "requests_per_minute": quota.requests_per_minute,
            "tokens_per_minute": quota.tokens_per_minute,
            "stored_mb": quota.stored_mb,
        }
        return {"tenant": tenant, **limits, "stored_bytes": self._registry.stored_bytes(tenant)}

    def set_quota(self, tenant: str, limits: Limits) -> Document:
        """Set the quota of a tenant, and return it."""
        self._registry.set_tenant_quota(check_tenant(tenant), Quota(**limits))
        return self.quota(tenant)


class ServerKeys:
    """The keys of a server, over HTTP."""

    offline = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, tenant: str, role: str, label: str, expires_at: datetime | None, limits: Limits) -> Document:
        """Make a key, and return it with its text under `key`."""
        made = self._client.create_key(role, tenant=tenant, label=label, expires_at=expires_at, **limits)
        return dict(made.document)

    def list(self, tenant: str | None) -> list[Document]:
        """Return the keys of a tenant, or of all that the key administers, oldest first."""
        return [dict(one.document) for one in self._client.keys(tenant)]

    def rotate(self, id: str, overlap: timedelta, expires_at: datetime | None) -> Document:
        """Make a key in place of another, and return it with its text under `key`."""
        seconds = int(overlap.total_seconds())
        return dict(self._client.rotate_key(id, overlap_seconds=seconds, expires_at=expires_at).document)

    def revoke(self, id: str) -> None:
        """Revoke a key."""
        self._client.revoke_key(id)

    def quota(self, tenant: str) -> Document:
        """Return the quota of a tenant."""
        return dict(self._client.tenant_quota(tenant).document)

    def set_quota(self, tenant: str, limits: Limits) -> Document:
        """Set the quota of a tenant, and return it."""
        return dict(self._client.set_tenant_quota(tenant, **limits).document)


def _issued(issued: IssuedKey) -> Document:
    return {**_shown(issued.record), "key": issued.text}


def _shown(record: KeyRecord) -> Document:
    """Return what may be shown of a key, as JSON."""
    fields = key_fields(record, datetime.now(UTC))
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in fields.items()}
