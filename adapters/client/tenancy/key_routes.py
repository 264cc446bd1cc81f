"""The routes of keys and quotas as calls: what each sends, and how its answer is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from rootstock.adapters.client.exchange import HttpCall
from rootstock.adapters.client.records import KeyEntry, NewKeyEntry, QuotaEntry
from rootstock.adapters.client.routes import reader_of

_KEYS = "/v1/keys"


def create_key(
    tenant: str | None, role: str, label: str, expires_at: datetime | None, limits: Mapping[str, int | None]
) -> HttpCall[NewKeyEntry]:
    """Return the call that makes a key. It is not repeatable: twice would make two keys."""
    body = {"tenant": tenant, "role": role, "label": label, "expires_at": _iso(expires_at), **limits}
    return HttpCall("POST", _KEYS, reader_of(NewKeyEntry.read), {"json": body}, repeatable=False)


def list_keys(tenant: str | None) -> HttpCall[list[KeyEntry]]:
    """Return the call that lists keys, oldest first."""
    params = {} if tenant is None else {"tenant": tenant}
    return HttpCall(
        "GET", _KEYS, reader_of(lambda document: [*map(KeyEntry.read, document["keys"])]), {"params": params}
    )


def rotate_key(id: str, overlap_seconds: int, expires_at: datetime | None) -> HttpCall[NewKeyEntry]:
    """Return the call that makes a key in place of another. It is not repeatable: twice would make two keys."""
    body: dict[str, Any] = {"overlap_seconds": overlap_seconds, "expires_at": _iso(expires_at)}
    path = f"{_KEYS}/{quote(id, safe='')}/rotation"
    return HttpCall("POST", path, reader_of(NewKeyEntry.read), {"json": body}, repeatable=False)


def revoke_key(id: str) -> HttpCall[None]:
    """Return the call that revokes a key."""
    return HttpCall("DELETE", f"{_KEYS}/{quote(id, safe='')}", lambda response: None)


def tenant_quota(tenant: str) -> HttpCall[QuotaEntry]:
    """Return the call that shows a tenant's quota."""
    return HttpCall("GET", _quota(tenant), reader_of(QuotaEntry.read))


def set_tenant_quota(tenant: str, limits: Mapping[str, int | None]) -> HttpCall[QuotaEntry]:
    """Return the call that sets a tenant's quota."""
    return HttpCall("PUT", _quota(tenant), reader_of(QuotaEntry.read), {"json": dict(limits)})


def _quota(tenant: str) -> str:
    return f"/v1/tenants/{quote(tenant, safe='')}/quota"


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
